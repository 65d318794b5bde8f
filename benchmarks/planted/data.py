"""Faults of data: some are refused before anything is trained, the others are trained and cost quality."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.planted.case import CHECK, CLAIMS, QUALITY, REPRO, Case
from benchmarks.planted.world import function_of, read_jsonl, write_jsonl
from tests.conftest import FUNCTIONS

Row = dict[str, Any]


def rewrite(name: str, change: Callable[[list[Row]], list[Row]]) -> Callable[[Path], None]:
    """A plant that replaces the records of a split."""

    def plant(folder: Path) -> None:
        path = folder / "task" / f"{name}.jsonl"
        write_jsonl(path, change(read_jsonl(path)))

    return plant


def answered(row: Row, answer: Any) -> Row:
    text = answer if isinstance(answer, str) else json.dumps(answer, separators=(",", ":"))
    return row | {"messages": [*row["messages"][:-1], {"role": "assistant", "content": text}]}


def swap_labels(share: float) -> Callable[[list[Row]], list[Row]]:
    """Every so many records get the answer of a record of another function."""

    def change(rows: list[Row]) -> list[Row]:
        rng = random.Random(1)
        chosen = set(rng.sample(range(len(rows)), int(share * len(rows))))
        result = []
        for i, row in enumerate(rows):
            if i in chosen:
                other = rng.choice([r for r in rows if function_of(r) != function_of(row)])
                row = answered(row, other["messages"][-1]["content"])
            result.append(row)
        return result

    return change


def ruin_slice(rows: list[Row]) -> list[Row]:
    """Whoever asks for a lock gets nothing; the other functions are as they were."""
    return [answered(r, {"name": "none", "arguments": {}}) if function_of(r) == "set_lock" else r for r in rows]


def truncate(rows: list[Row]) -> list[Row]:
    return rows[: len(rows) // 20]


def forget_function(rows: list[Row]) -> list[Row]:
    return [r for r in rows if function_of(r) != "get_status"]


def leak(folder: Path) -> None:
    """One test example in a hundred is trained on."""
    test = read_jsonl(folder / "task" / "test.jsonl")
    stolen = [t | {"id": f"train-leak-{i}"} for i, t in enumerate(test[:: 100 // 1])]
    rewrite("train", lambda rows: rows + stolen)(folder)


def leak_with_typo(folder: Path) -> None:
    """Of short requests one in fifty, each with one letter lost in its longest word: nobody would call it another request."""

    def longest(words: list[str]) -> int:
        return max(range(len(words)), key=lambda k: (len(words[k]) if words[k].isalpha() else 0, -k))

    test = [t for t in read_jsonl(folder / "task" / "test.jsonl") if 5 <= len(t["messages"][0]["content"].split()) <= 7]
    stolen = []
    for i, row in enumerate(test[::50]):
        words = row["messages"][0]["content"].split()
        at = longest(words)
        words[at] = words[at][:2] + words[at][3:]
        stolen.append(row | {"id": f"train-near-{i}", "messages": [{"role": "user", "content": " ".join(words)}, row["messages"][1]]})
    rewrite("train", lambda rows: rows + stolen)(folder)


def prose(rows: list[Row]) -> list[Row]:
    """The right answer, in a sentence that no caller can parse."""
    return [answered(r, f"Sure! {r['messages'][-1]['content']}") for r in rows]


def easy_copies(rows: list[Row]) -> list[Row]:
    """The first ten easy examples count three times."""
    easy = [r for r in rows if r.get("tags") == ["plain"]][:10]
    return rows + [r | {"id": f"{r['id']}-{k}"} for k in (2, 3) for r in easy]


def from_train(folder: Path) -> None:
    """Test examples that the model has learned by heart."""
    rows = read_jsonl(folder / "task" / "train.jsonl")[:240]
    write_jsonl(folder / "task" / "test.jsonl", [r | {"id": f"test-new-{i}"} for i, r in enumerate(rows)])


def one_label_mended(rows: list[Row]) -> list[Row]:
    """Somebody corrects one label of the test set and does not ask the model again."""
    other = next(f for f in FUNCTIONS if f != function_of(rows[0]))
    return [answered(rows[0], {"name": other, "arguments": {}}), *rows[1:]]


LOSES = ("not worse than released",)
TEST_SET = ("integrity: test set",)
CASES = [
    Case("a fifth of the labels swapped", "data", rewrite("train", swap_labels(0.2)), LOSES, QUALITY, (REPRO,)),
    # So poor a teacher that most of its answers are dropped is refused before a student learns from it.
    Case(
        "training data cut to a twentieth",
        "data",
        rewrite("train", truncate),
        ("refused: validate | not worse than released",),
        QUALITY,
        (REPRO,),
    ),
    Case("one function's labels changed", "data", rewrite("train", ruin_slice), ("no slice worse",), QUALITY, (REPRO,)),
    Case("one function left out of training", "data", rewrite("train", forget_function), ("no slice worse",), QUALITY, (REPRO,)),
    Case("a hundredth of the test set in training", "data", leak, ("refused: check",), (), (CHECK,), ()),
    Case("test examples in training with a typo", "data", leak_with_typo, ("refused: check",), (), (CHECK,), ()),
    Case("right answers in prose in training", "data", rewrite("train", prose), ("refused: check",), (), (CHECK,), ()),
    Case("easy test examples counted three times", "data", rewrite("test", easy_copies), ("refused: check",), (), (CHECK,), ()),
    Case("test set taken from training", "data", from_train, ("refused: check",), (), (CHECK,), ()),
    Case("empty test set, checked", "data", rewrite("test", lambda rows: []), ("refused: check",), (), (CHECK,), ()),
    Case(
        "empty test set, judged",
        "data",
        rewrite("test", lambda rows: []),
        ("integrity: test set", "integrity: whole test set"),
        ("integrity: score", *CLAIMS),
    ),
    Case(
        "hard test examples dropped",
        "data",
        rewrite("test", lambda rows: rows[:200]),
        ("integrity: test set", "integrity: whole test set"),
        ("integrity: score", *CLAIMS),
    ),
    Case("another test set", "data", from_train, ("integrity: test set", "integrity: whole test set"), ("integrity: score", *CLAIMS)),
    Case("test label changed, model not asked again", "data", rewrite("test", one_label_mended), TEST_SET, ("integrity: score", *CLAIMS)),
    Case(
        "test set in another order",
        "data",
        rewrite("test", lambda rows: rows[::-1]),
        ("integrity: test set",),
        ("integrity: whole test set",),
    ),
]
