"""Faults of facts: what the reports say is not what was found."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.planted.case import CLAIMS, GATE, LOCK, Case
from benchmarks.planted.package import swap_weights
from benchmarks.planted.world import read_jsonl, write_jsonl

Row = dict[str, Any]
LADDER = Path("reports/ladder.json")
PREDICTIONS = Path("predictions/int4.jsonl")


def figure(name: str, value: str, rung: str = "int4") -> Callable[[Path], None]:
    """A plant that writes `value` for one figure of a rung into the ladder; an empty one removes it."""

    def plant(folder: Path) -> None:
        path = folder / LADDER
        text = path.read_text(encoding="utf-8")
        start = text.index(f'"name": "{rung}"')
        pattern = rf'"{name}": [^,\n]+,' if not value else rf'("{name}": )[^,\n}}]+'
        changed, count = re.subn(pattern, rf"\g<1>{value}" if value else "", text[start:], count=1)
        assert count == 1, f"the ladder has no {name}: mend this case"
        path.write_text(text[:start] + changed, encoding="utf-8")

    return plant


def edit_json(path: Path, change: Callable[[Row], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def slower(folder: Path) -> None:
    """Every fact agrees that a request takes as long as with the teacher."""
    ladder = json.loads((folder / LADDER).read_text(encoding="utf-8"))
    teacher = ladder["rungs"][0]["request_ms_p50"]
    edit_json(folder / LADDER, lambda v: next(r for r in v["rungs"] if r["name"] == "int4").update(request_ms_p50=teacher))
    edit_json(folder / "reports/cost.json", lambda v: v["rungs"]["int4"]["by_threads"][str(v["threads"])].update(request_ms_p50=teacher))


def cost_of_others(folder: Path) -> None:
    """Time and memory were measured of the INT8 model."""
    edit_json(folder / "reports/cost.json", lambda v: v["rungs"].update(int4=v["rungs"]["int8"]))


def predictions(change: Callable[[list[Row]], list[Row]]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        write_jsonl(folder / PREDICTIONS, change(read_jsonl(folder / PREDICTIONS)))

    return plant


def gold(rows: list[Row]) -> list[Row]:
    return [rows[0], *(r | {"answer": r["expected"]} for r in rows[1:])]


def claim(folder: Path, **figures: float) -> None:
    """The same figures in both places that claim them."""
    edit_json(folder / "reports/quality/int4.json", lambda v: v.update(figures))
    edit_json(folder / LADDER, lambda v: next(r for r in v["rungs"] if r["name"] == "int4").update(figures))


def overclaimed(folder: Path) -> None:
    claim(folder, score=0.95, score_low=0.93, score_high=0.97)


def asked_for_what_it_says(folder: Path) -> None:
    """The expected answers of the prediction file become what the model said, where that can be read, and the score is made to fit."""
    header, *rows = read_jsonl(folder / PREDICTIONS)
    readable = []
    for row in rows:
        try:
            json.loads(row["answer"])
            readable.append(True)
        except ValueError:
            readable.append(False)
    forged = [r | {"expected": r["answer"]} if ok else r for r, ok in zip(rows, readable, strict=True)]
    write_jsonl(folder / PREDICTIONS, [header, *forged])
    claim(folder, score=sum(readable) / len(rows), score_low=0.98, score_high=1.0)


def low_end_raised(folder: Path) -> None:
    """The score is right, and the lower end of its interval, by which it is judged, is not."""
    claim(folder, score_low=0.99)


def of_other_weights(folder: Path) -> None:
    """The unquantized model's answers under the shipped one's name."""
    shutil.copyfile(folder / "predictions" / "onnx.jsonl", folder / PREDICTIONS)
    shutil.copyfile(folder / "reports/quality/onnx.json", folder / "reports/quality/int4.json")


def of_former_weights(folder: Path) -> None:
    """The package is another than the one that answered, and everything else was left."""
    swap_weights(folder)


CASES = [
    Case("metric is not a number", "facts", figure("rss_mb", "NaN"), ("memory",), CLAIMS),
    Case("metric is infinite", "facts", figure("request_ms_p50", "Infinity"), ("time",), CLAIMS),
    Case("metric is missing", "facts", figure("valid_rate", ""), ("valid answers",), CLAIMS),
    Case("metric is null", "facts", figure("score_low", "null"), ("score",), CLAIMS),
    Case("metric is a text", "facts", figure("score_low", '"0.99"'), ("score",), CLAIMS),
    Case("metric is a truth value", "facts", figure("score_low", "true"), ("score",), CLAIMS),
    Case("teacher's time is zero", "facts", figure("request_ms_p50", "0.0", "teacher"), ("time",), CLAIMS),
    Case("time doubled against the teacher", "facts", slower, ("time",), CLAIMS),
    Case("cost figures of other bytes", "facts", cost_of_others, ("integrity: bytes timed",), CLAIMS),
    Case(
        "predictions cut short",
        "facts",
        predictions(lambda rows: rows[:-20]),
        ("integrity: whole test set",),
        ("integrity: score", *CLAIMS),
    ),
    Case(
        "an example answered twice",
        "facts",
        predictions(lambda rows: [*rows, rows[-1]]),
        ("integrity: whole test set",),
        ("integrity: score", *CLAIMS),
    ),
    Case(
        "stale predictions of the former weights",
        "facts",
        of_former_weights,
        ("integrity: bytes scored",),
        ("integrity: bytes timed", "integrity: weights", *CLAIMS),
    ),
    Case(
        "predictions of other weights",
        "facts",
        of_other_weights,
        ("integrity: bytes scored",),
        ("integrity: score", "not worse than released", *CLAIMS),
    ),
    Case("gold answers as predictions", "facts", predictions(gold), ("integrity: score",), CLAIMS),
    Case("claimed score too high", "facts", overclaimed, ("integrity: score",), CLAIMS),
    Case("expected answers changed to the model's", "facts", asked_for_what_it_says, ("integrity: score",), CLAIMS),
    Case(
        "lower end of the interval raised",
        "facts",
        low_end_raised,
        ("integrity: figures",),
        ("refused: lock",),
        (),
        (GATE, LOCK),
    ),
    Case(
        "teacher's score lowered",
        "facts",
        figure("score", "0.1", "teacher"),
        ("integrity: figures",),
        ("refused: lock",),
        (),
        (GATE, LOCK),
    ),
]
