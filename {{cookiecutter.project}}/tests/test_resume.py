"""The key of a stage's checkpoints: another one for all that changes its result, the same for all that does
not.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from slm.config.edit import rewrite
from slm.config.params import load_params
from slm.training.resume import resume_key

TRAINED = ("teach", "distill", "finetune")
LABELS = {"task/train.jsonl", "task/validation.jsonl", "task/task.yaml"}
READ = {
    "teach": LABELS | {"task/prompts.jsonl", "models/base/config.json"},
    "distill": LABELS
    | {"task/prompts.jsonl", "data/synthetic.jsonl", "data/logprobs.npz", "models/teacher/config.json"}
    | {"models/base/config.json", "models/own/none.json"},
    "finetune": LABELS | {"models/distilled/config.json"},
}
NOT_READ = {
    "task/test.jsonl",
    "data/invented.jsonl",
    "reports/judged.json",
    "reports/synthetic.json",
    "pipeline/distill.py",
    "slm/training/trainer.py",
}


def key(stage: str) -> str:
    return resume_key(stage, load_params())


def with_a_byte_more(name: str, what: Callable[[], str]) -> str:
    """What `what` says while the file is another one."""
    path = Path(name)
    before = path.read_bytes()
    path.write_bytes(before + b"\n")
    try:
        return what()
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("stage", TRAINED)
def test_every_file_that_a_stage_reads_is_in_its_key_and_no_other(
    stage: str, project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project)
    Path("models/distilled").mkdir()
    Path("models/distilled/config.json").write_text("{}", encoding="utf-8")
    before = key(stage)
    for name in READ[stage]:
        assert with_a_byte_more(name, lambda: key(stage)) != before, name
    for name in NOT_READ:
        assert with_a_byte_more(name, lambda: key(stage)) == before, name


@pytest.mark.parametrize("stage", TRAINED)
def test_every_parameter_that_changes_the_result_is_in_the_key(
    stage: str, project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project)
    Path("models/distilled").mkdir()
    before = key(stage)
    changes = [
        {"seed": 7},
        {"compute": {"device": "cpu"}},
        {"compute": {"precision": "bfloat16"}},
        {stage: {"learning_rate": 0.05}},
        {stage: {"save_steps": 7}},
    ]
    for change in changes:
        params = Path("params.yaml").read_bytes()
        rewrite(change)
        assert key(stage) != before, change
        Path("params.yaml").write_bytes(params)
    rewrite({"compute": {"processes": 2}, "evaluate": {"max_new_tokens": 9}})
    assert key(stage) == before


def test_a_model_that_code_prepared_is_in_the_key(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    start = Path("prepared")
    start.mkdir()
    keys = []
    for text in ("{}", "[]", "{}"):
        (start / "tokenizer.json").write_text(text, encoding="utf-8")
        keys.append(resume_key("teach", load_params(), start))
    assert keys[0] == keys[2] != keys[1] != key("teach")
