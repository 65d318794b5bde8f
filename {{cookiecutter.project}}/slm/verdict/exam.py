"""A hidden exam: a second test set that nobody can train on, since the repository holds it encrypted.

    slm exam new FILE        once, where the labelled file is
    slm exam requests        in the job that asks; has the key of the requests
    slm exam answers         the same: what the model said, encrypted again
    slm exam score           in a job that loads no model; has both keys

Requests and expected answers have a key each, so the job that asks never sees an expected answer. A model
that has memorised the public test set scores far worse here, and the gap is judged.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.fernet import Fernet, InvalidToken
from scipy.stats import norm

from slm.errors import UserError
from slm.files import read_json, read_jsonl, replacing, write_json, write_jsonl
from slm.task.definition import Task, load_task
from slm.task.metrics import score_one
from slm.task.records import TASK, Prediction, Record, prediction, read_records
from slm.task.text import normal
from slm.verdict.contract import Contract, load_contract
from slm.verdict.registry import EXAM
from slm.verdict.rows import Row
from slm.verdict.statistics import CONFIDENCE

EXAM_FOLDER = Path("exam")
EXAM_KEYS = Path(".exam")  # never committed: .gitignore names it
REQUESTS, EXPECTED = "requests", "answers"
SMALLEST_EXAM = 50  # requests; of fewer the score says too little
HEARD = Path("rechecked/exam.jsonl")


def encrypted(part: str) -> Path:
    return EXAM_FOLDER / f"{part}.enc"


def key_variable(part: str) -> str:
    """Name of the secret that holds the key of one part."""
    return f"EXAM_{part.upper()}_KEY"


def _cipher(part: str) -> Fernet:
    text = os.environ.get(key_variable(part), "").strip()
    try:
        return Fernet(text)
    except ValueError:
        raise UserError(
            f"{key_variable(part)} holds no key of the exam; set the secret to the text of "
            f"{EXAM_KEYS / part}.key, which `slm exam new` wrote"
        ) from None


def _opened(path: Path, part: str) -> list[dict[str, Any]]:
    """Rows of an encrypted file; Fernet also refuses one that was changed."""
    try:
        text = _cipher(part).decrypt(path.read_bytes()).decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `slm exam new FILE` makes the exam") from None
    except InvalidToken:
        raise UserError(
            f"{path} was not encrypted with the key in {key_variable(part)}, or was changed since; set the "
            "secret again, or make the exam anew"
        ) from None
    return [json.loads(line) for line in text.split("\n") if line]


def _close(path: Path, cipher: Fernet, rows: list[Any]) -> None:
    data = cipher.encrypt("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def known_elsewhere(records: list[Record]) -> list[str]:
    """Ids of exam records whose request a file of the repository holds already."""
    public = {
        normal(record.asked)
        for name in ("train", "validation", "test")
        for record in read_records(TASK / f"{name}.jsonl", answered=True)
    }
    return [record.id for record in records if normal(record.asked) in public]


def make_exam(file: Path) -> None:
    """Encrypt a labelled file with two new keys.

    Raises:
        UserError: records that are faulty, too few, or known to the public files.
    """
    records = read_records(file, answered=True)
    if len(records) < SMALLEST_EXAM:
        raise UserError(f"{file}: {len(records)} records; an exam needs at least {SMALLEST_EXAM}")
    known = known_elsewhere(records)
    if known:
        raise UserError(
            f"{file}: {len(known)} requests stand in {TASK}/ too, such as {known[0]}; take them out, so that "
            "the exam is hidden"
        )
    parts = {
        REQUESTS: [{"id": r.id, "messages": r.prompt} for r in records],
        EXPECTED: [{"id": r.id, "messages": r.messages, "tags": r.tags} for r in records],
    }
    with replacing(EXAM_KEYS) as folder:
        folder.mkdir()
        for part, rows in parts.items():
            key = Fernet.generate_key()
            path = folder / f"{part}.key"
            path.touch(mode=0o600)
            path.write_bytes(key)
            _close(encrypted(part), Fernet(key), rows)
    print(
        f"{EXAM_FOLDER}/: {len(records)} requests, encrypted. Commit it, and give main's workflow the keys:\n"
        + "".join(f"  gh secret set --env main {key_variable(p)} < {EXAM_KEYS / p}.key\n" for p in parts)
        + f"Then keep {file} and {EXAM_KEYS}/ where nobody trains, and delete them here."
    )


def open_requests(target: Path) -> None:
    write_jsonl(target, _opened(encrypted(REQUESTS), REQUESTS))


def close_answers() -> None:
    """Encrypt what the model said, and remove the plain file."""
    _close(HEARD.with_suffix(".enc"), _cipher(REQUESTS), read_jsonl(HEARD))
    HEARD.unlink()


def judge_gap(public: list[float], exam: list[float], largest: float) -> tuple[float, bool]:
    """Lower one-sided 95% bound of the public score's lead over the exam's, and whether it is small enough.

    Two made-up examples, one right and one wrong, are added to each side. Without them a score of 1 or 0
    would have an interval without width (Agresti and Caffo 2000).
    """
    one, other = (np.array([*scores, 0.0, 1.0]) for scores in (public, exam))
    error = np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
    low = float(one.mean() - other.mean() - norm.ppf(CONFIDENCE) * error)
    return low, low <= largest


def exam_row(
    contract: Contract, task: Task, public: list[Prediction], heard: list[Prediction]
) -> tuple[Row, Any]:
    scores = [
        [score_one(task, p["expected"], p["answer"])["score"] for p in side] for side in (public, heard)
    ]
    low, small = judge_gap(scores[0], scores[1], contract.exam.max_gap)
    means = [float(np.mean(side)) for side in scores]
    why = (
        f"the public test set gives {means[0]:.3f}, the exam {means[1]:.3f} ({len(heard)} requests); the "
        f"gap is surely (95%) more than {low:.3f}"
    )
    if not small:
        why += "; the model may know the public test set: look for test requests in its training data"
    return EXAM.row(small, round(low, 4), contract.exam.max_gap, why), means


def score_exam(rechecked: Path, target: Path) -> Row:
    """Score what the model said in the exam, and write the result without any text of it.

    Raises:
        UserError: an answer is missing, or a key is not the right one.
    """
    task, contract = load_task(), load_contract()
    findings = read_json(rechecked / "findings.json")  # the job that seals compares what is taken from it
    replies = {row["id"]: row for row in _opened(rechecked / "exam.enc", REQUESTS)}
    records = [
        Record(row["id"], row["messages"], row["tags"]) for row in _opened(encrypted(EXPECTED), EXPECTED)
    ]
    if {r.id for r in records} != set(replies):
        raise UserError(
            f"{rechecked / 'exam.enc'} does not answer this exam request by request; run the workflow again"
        )
    heard = [prediction(r, replies[r.id]["answer"], replies[r.id]["cut"]) for r in records]
    public = read_jsonl(rechecked / "predictions.jsonl")[1:]
    row, means = exam_row(contract, task, public, heard)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        target,
        {
            "commit": findings["commit"],
            "folder_sha256": findings["folder_sha256"],
            "passed": not row.refuses,
            "score": means[1],
            "n": len(heard),
            "public_score": means[0],
            "why": row.why,
        },
    )
    print(row.why)
    return row
