"""How much of a score is noise? The student is trained again from other seeds: same teacher, same data, same
test set.

    slm seeds 5       seeds 0 to 4; one that is done is not trained again, one that was stopped goes on

Takes as long as the student's stages, times the number of seeds. Nothing of this checkout changes: each seed
has a copy of its own, and only the answers come back, to predictions/seeds/ (and the models into DVC's cache:
`dvc gc --workspace` frees it). Prints the noise of training beside the noise of the test set, and writes
reports/seeds.json; `slm calibrate predictions/seeds/*.jsonl` says what that
means for the verdict.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from scipy.stats import t

from slm.config.params import load_params
from slm.dvc_cli import dvc, dvc_status, out_of_lock
from slm.errors import UserError
from slm.experiments.workspace import RETRY, copy
from slm.files import read_jsonl, sha256_json, write_json, write_jsonl
from slm.tables import plain
from slm.task.definition import load_task
from slm.task.metrics import score_one

SEED_RUNS, ANSWERS, OUTPUT = Path(".cache/seeds"), Path("predictions/seeds"), Path("reports/seeds.json")


def stages(shipped: str) -> list[str]:
    """Those that make the student, from the teacher's answers to the student's own."""
    quantized = [] if shipped == "onnx" else [f"quantize@{shipped}"]
    return ["distill", "finetune", "convert@onnx", *quantized, f"evaluate@{shipped}"]


def student_fingerprint(shipped: str) -> str:
    """Names all that the student is made from but its seed."""
    lock = YAML(typ="safe").load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"]
    parts = []
    for name in stages(shipped):
        entry = lock[name]
        values = {
            file: {k: v for k, v in values.items() if k != "seed"}
            for file, values in entry.get("params", {}).items()
        }
        parts.append([entry["cmd"], entry["deps"], values])
    return sha256_json(parts)


def forget_others(key: str) -> None:
    """Answers and copies of students that were made from something else, and copies that were never whole."""
    for path in ANSWERS.glob("*.jsonl"):
        if read_jsonl(path)[0].get("made_from") != key:
            path.unlink()
    note = SEED_RUNS / "made_from"
    if note.exists() and note.read_text(encoding="utf-8") != key:
        shutil.rmtree(SEED_RUNS)
    SEED_RUNS.mkdir(parents=True, exist_ok=True)
    note.write_text(key, encoding="utf-8")
    for path in SEED_RUNS.glob(".*.part"):
        shutil.rmtree(path)


def answers(seed: int, shipped: str, key: str) -> Path:
    """The answers of the student of one seed, trained now if they are not here."""
    path = ANSWERS / f"{seed}.jsonl"
    if path.exists():
        shutil.rmtree(SEED_RUNS / str(seed), ignore_errors=True)  # left by a kill
        return path
    # All test examples: a sample would be another one for each seed.
    folder = copy(SEED_RUNS / str(seed), {"seed": seed, "evaluate": {"sample": {shipped: None}}})
    for name in stages(shipped):
        dvc("repro", "--single-item", name, folder=folder, remedy=RETRY)
    header, *rows = read_jsonl(folder / "predictions" / f"{shipped}.jsonl")
    write_jsonl(path, [header | {"seed": seed, "made_from": key}, *rows])
    shutil.rmtree(folder)
    return path


def noise(scores: np.ndarray) -> dict[str, float]:
    """Two kinds of noise, as standard deviations of one model's score.

    Args:
        scores: of each seed (rows) on each example.

    Returns:
        `of_training`: another seed, same examples; `of_the_test_set`: other examples, same model; `differ`:
            share of answers whose score differs between two seeds; `difference`: what 95% of differences
            between two students of this making stay below, on one test set: by the flipped answers, or by the
            scores of the seeds, whichever is more.
    """
    seeds, examples = scores.shape
    means = scores.mean(axis=1)
    pairs = [(i, j) for i in range(seeds) for j in range(i)]
    differ = float(np.mean([(scores[i] != scores[j]).mean() for i, j in pairs]))
    # The same examples are asked of both, so what is noise in a difference is the answers that flip; and a
    # whole seed can be better or worse.
    squares = float(np.mean([np.square(scores[i] - scores[j]).mean() for i, j in pairs]))
    flips, training = (
        1.96 * np.sqrt(squares / examples),
        float(t.ppf(0.975, seeds - 1) * np.sqrt(2) * means.std(ddof=1)),
    )
    return {
        "of_training": float(means.std(ddof=1)),
        "of_the_test_set": float(np.mean(scores.std(axis=1, ddof=1)) / np.sqrt(examples)),
        "differ": differ,
        "difference": float(max(flips, training)),
    }


def seeds_report(facts: dict[str, Any]) -> str:
    rows = [["seed", "score"], *([str(s["seed"]), f"{s['score']:.3f}"] for s in facts["seeds"])]
    found = facts["noise"]
    return plain(rows) + (
        f"\nnoise of training    {found['of_training']:.4f}   standard deviation of the score over seeds, "
        f"on these {facts['examples']} examples\n"
        f"noise of the test set {found['of_the_test_set']:.4f}   the same over other test sets of this size, "
        "for one model\n"
        f"{found['differ']:.0%} of the answers differ between two seeds: equally good students differ by up "
        f"to {found['difference']:.3f} (95%) "
        "on this test set by noise alone\n"
    )


def train_seeds(number: int) -> None:
    """Train the student from the seeds 0 to `number` - 1, print and write how much their scores differ."""
    if number < 2:
        raise UserError(f"{number} seeds have no spread; give at least 2")
    if not Path("dvc.lock").exists() or out_of_lock(dvc_status()):
        raise UserError(
            "dvc.lock is not in sync with the files: run `slm repro` first; seeds are compared with the "
            "model that it makes"
        )
    shipped, task = load_params().package.variant, load_task()
    key, paths = student_fingerprint(shipped), []
    forget_others(key)
    for seed in range(number):
        print(f"seed {seed}, {seed + 1} of {number}", flush=True)
        paths.append(answers(seed, shipped, key))
    tables = [read_jsonl(path)[1:] for path in paths]
    scores = np.array(
        [[score_one(task, r["expected"], r["answer"])["score"] for r in rows] for rows in tables]
    )
    facts = {
        "made_from": key,
        "test_sha256": read_jsonl(paths[0])[0]["test_sha256"],
        "examples": scores.shape[1],
        "seeds": [{"seed": i, "score": float(s)} for i, s in enumerate(scores.mean(axis=1))],
        "noise": noise(scores),
    }
    write_json(OUTPUT, facts)
    print(seeds_report(facts))
