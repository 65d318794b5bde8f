"""The noise of training and the noise of the test set are told apart."""

from pathlib import Path

import numpy as np
import pytest

from slm.experiments.seeds import noise, stages, student_fingerprint
from slm.files import write_text

LOCK = """
stages:
  distill: {cmd: d, deps: [{path: a, md5: SUM}], params: {params.yaml: {seed: SEED, distill.layers: 2}}}
  finetune: {cmd: f, deps: []}
  convert@onnx: {cmd: c, deps: []}
  quantize@int4: {cmd: q, deps: []}
  evaluate@int4: {cmd: e, deps: []}
"""


def test_same_answers_have_no_noise_of_training():
    scores = np.tile(np.array([1.0, 0.0, 1.0, 1.0]), (3, 1))
    found = noise(scores)
    assert (found["of_training"], found["differ"], found["difference"]) == (0, 0, 0)
    assert found["of_the_test_set"] == pytest.approx(np.std([1, 0, 1, 1], ddof=1) / 2)


def test_noise_is_found_as_it_was_made():
    rng = np.random.default_rng(0)
    chance = rng.random(4000)  # of each example to be answered right
    found = noise((rng.random((60, 4000)) < chance).astype(float))
    assert found["of_training"] == pytest.approx(np.sqrt((chance * (1 - chance)).mean() / 4000), rel=0.25)
    assert found["differ"] == pytest.approx(2 * (chance * (1 - chance)).mean(), rel=0.05)
    # Of equally good students at least 95% differ by less.
    means = (rng.random((2000, 4000)) < chance).mean(axis=1)
    assert (abs(means[::2] - means[1::2]) <= found["difference"]).mean() == pytest.approx(0.965, abs=0.03)


def test_a_student_is_trained_again_when_anything_but_its_seed_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)

    def named(total: str, seed: str) -> str:
        write_text(Path("dvc.lock"), LOCK.replace("SUM", total).replace("SEED", seed))
        return student_fingerprint("int4")

    assert named("x", "0") == named("x", "1")
    assert named("x", "0") != named("y", "0")


def test_what_ships_decides_which_stages_run():
    assert stages("int4")[-2:] == ["quantize@int4", "evaluate@int4"]
    assert stages("onnx")[-2:] == ["convert@onnx", "evaluate@onnx"]


def test_a_whole_seed_that_is_better_counts():
    scores = np.zeros((4, 1000))
    for i, right in enumerate((700, 720, 740, 760)):  # few answers differ, but always the same way
        scores[i, :right] = 1
    assert noise(scores)["difference"] > 3 * np.sqrt(2) * noise(scores)["of_training"]
