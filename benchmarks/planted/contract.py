"""Faults of the contract, of what candidates are compared with, and of the scorer."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.planted.case import CHANGES, CHECK, CLAIMS, GATE, SHIP, TESTS, Case
from benchmarks.planted.facts import slower
from benchmarks.planted.package import flip_byte
from benchmarks.planted.training import code
from benchmarks.planted.world import commit, edit_params


def gates(pattern: str, replacement: str) -> Callable[[Path], None]:
    """A plant that changes one place of the contract."""

    def plant(folder: Path) -> None:
        path = folder / "gates.yaml"
        text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if count != 1:
            raise RuntimeError(f"gates.yaml holds {pattern} {count} times: mend this case")
        path.write_text(text, encoding="utf-8", newline="\n")

    return plant


def removed(folder: Path) -> None:
    (folder / "gates.yaml").unlink()


def released(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "released.json"
        value = json.loads(path.read_text(encoding="utf-8"))
        change(value)
        path.write_text(json.dumps(value, indent=2), encoding="utf-8")

    return plant


def other_file(folder: Path) -> None:
    """The pointer leads to predictions of a worse model, under the hash of the released one's, and nothing is downloaded yet."""
    entry = json.loads((folder / "released.json").read_text(encoding="utf-8"))["released"]
    (folder / ".cache" / "released" / entry["predictions_sha256"]).unlink()
    shutil.copyfile(folder / "predictions" / "base.jsonl", folder / "other.jsonl")
    released(lambda v: [v[w].update(predictions="other.jsonl") for w in ("released", "best")])(folder)


def without_hash(value: dict[str, Any]) -> None:
    del value["released"]["predictions_sha256"]


def forgotten(folder: Path) -> None:
    """A commit after which nothing is released, so that nothing is compared any more."""
    released(lambda v: v.update(released=None, best=None))(folder)
    commit(folder, "Tidy up")


def waiver(gate: str, until: str, fault: Callable[[Path], None]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        fault(folder)
        row = f'{{gate: "{gate}", owner: ada, reason: "for a while", until: {until}}}'
        (folder / "waivers.yaml").write_text(f"waivers:\n  - {row}\n", encoding="utf-8")

    return plant


def other_licence(folder: Path) -> None:
    """The base model turns out to be for research only."""
    edit_params(folder, models={"license": "LicenseRef-research-only"})


def unnamed_licence(folder: Path) -> None:
    """Nobody says any more whether the data may be used."""
    path = folder / "task" / "task.yaml"
    path.write_text(re.sub("license: .*\n", "", path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


def fewer_expectations(folder: Path) -> None:
    """The expectation that finds leaks is dropped from the suite, and the data are checked again without it."""
    path = folder / "task" / "expectations" / "labelled.json"
    suite = json.loads(path.read_text(encoding="utf-8"))
    suite["expectations"] = [e for e in suite["expectations"] if e["kwargs"].get("column") != "leak"]
    path.write_text(json.dumps(suite, indent=2), encoding="utf-8")


WEAKER = ("weakened",)
REFUSED = ("refused: gate",)
ONLY_NAMES = code(
    "slm/task/metrics.py",
    "float(NOTHING not in (want, got) and canonical(got) == canonical(want))",
    'float(isinstance(got, dict) and got.get("name") == want.get("name"))',
)
CASES = [
    Case("gates emptied", "contract", gates(r"gates:\n(  - .*\n)+", "gates: []\n"), REFUSED),
    Case("contract removed", "contract", removed, REFUSED),
    Case("a gate removed", "contract", gates(r"^  - {name: valid answers.*\n", ""), WEAKER),
    Case("threshold loosened", "contract", gates(r"(name: valid answers.*at_least: )[0-9.]+", r"\g<1>0.5"), WEAKER),
    Case("ceiling raised", "contract", gates(r"(name: weights.*at_most: )[0-9.]+", r"\g<1>0.9"), WEAKER),
    Case("severity turned to warn", "contract", gates("(name: score, severity: )block", r"\g<1>warn"), WEAKER),
    Case("gate looks at another metric", "contract", gates("(name: score, .*metric: shipped.)score_low", r"\g<1>valid_rate"), WEAKER),
    Case("gate looks at another rung", "contract", gates("(name: score, .*metric: )shipped", r"\g<1>teacher"), WEAKER),
    Case("gate turned round", "contract", gates("(name: weights.*)at_most: .*}", r"\g<1>at_least: 0.01}"), WEAKER),
    Case("margin to the released model raised", "contract", gates(r"(released: {margin: )[0-9.]+", r"\g<1>0.2"), WEAKER),
    Case("slices made too large to be judged", "contract", gates("slice_size: 30", "slice_size: 1000"), WEAKER),
    Case("slices judged more leniently", "contract", gates(r"slice_alpha: [0-9.]+", "slice_alpha: 0.0001"), WEAKER),
    Case("limit is not a number", "contract", gates(r"(name: score, .*at_least: )[0-9.]+", r"\g<1>.nan"), REFUSED),
    Case("limit's key misspelt", "contract", gates("(name: score, .*)at_least", r"\g<1>at_leest"), REFUSED),
    Case("two gates of one name", "contract", gates("name: valid answers", "name: score"), REFUSED),
    Case("released model's predictions swapped", "contract", other_file, REFUSED),
    Case("released model's hash removed", "contract", released(without_hash), REFUSED),
    Case("released model forgotten", "contract", forgotten, WEAKER, doors=(CHANGES,)),
    Case("licence not allowed", "contract", other_licence, ("licence of the base model",)),
    Case("licence of the data not named", "contract", unnamed_licence, ("licence of the data",)),
    Case("another licence allowed", "contract", gates("allowed_licences: .Apache-2.0", r"\g<0>, LicenseRef-mine"), WEAKER),
    Case("licences no longer looked at", "contract", gates("allowed_licences: .*\n", ""), WEAKER),
    Case("expectation removed", "contract", fewer_expectations, ("data expectations",), (), (CHECK,)),
    Case("expectation no longer required", "contract", gates("schema_error, leak, ", "schema_error, "), WEAKER),
    Case("expired waiver", "contract", waiver("time", "2020-01-01", slower), ("time",), (*CLAIMS, "weakened")),
    Case("waiver for an integrity gate", "contract", waiver("integrity: bytes scored", "2999-01-01", flip_byte), REFUSED),
    Case("waiver for a gate that does not exist", "contract", waiver("tmie", "2999-01-01", slower), REFUSED),
    Case("scorer that ignores arguments, not asked again", "contract", ONLY_NAMES, ("integrity: score",), CLAIMS),
    # With facts made by it the checkout's own gate sees nothing: the tests do, and the judge scores by the default branch's.
    Case(
        "scorer that ignores arguments, asked again",
        "contract",
        ONLY_NAMES,
        ("refused: tests",),
        ("kept of teacher", *CLAIMS),
        SHIP,
        (GATE, TESTS),
    ),
]
