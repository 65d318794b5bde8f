"""Facts that do not follow from what they were made from are named."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from slm.evaluation.ladder import COST, RUNGS, build
from slm.export.packaging import checksums
from slm.files import read_json, sha256_file, write_json, write_jsonl
from slm.task.metrics import summarise
from slm.task.records import Record
from slm.verdict.integrity import alike, with_true_labels, wrong_figures, wrong_papers

RIGHT, WRONG = '{"name":"a","arguments":{}}', '{"name":"b","arguments":{}}'
RECORDS = [
    Record(str(i), [{"role": "user", "content": f"p{i}"}, {"role": "assistant", "content": RIGHT}], ["plain"])
    for i in range(4)
]


@pytest.fixture
def world(task, tmp_path: Path) -> tuple[dict[str, Any], Path, Path]:
    """Ladder, reports and predictions of seven rungs that were made as the stages make them."""
    reports, predictions = tmp_path / "reports", tmp_path / "predictions"
    measured = {"folder_sha256": "f", "weights_mb": 1.0, "by_threads": {"1": dict.fromkeys(COST, 2.0)}}
    write_json(reports / "cost.json", {"threads": 1, "machine": {}, "rungs": {"int4": measured}})
    for name in RUNGS:
        rows = [
            {
                "id": r.id,
                "prompt": r.text,
                "expected": r.answer,
                "answer": RIGHT if i else WRONG,
                "cut": False,
                "tags": r.tags,
            }
            for i, r in enumerate(RECORDS)
        ]
        write_jsonl(predictions / f"{name}.jsonl", [{"rung": name}, *rows])
        hashes = {"weights_sha256": "w", "folder_sha256": "f", "test_sha256": "t"}
        write_json(reports / "quality" / f"{name}.json", {"rung": name, **hashes, **summarise(task, rows)})
    return build(reports, "t", "quick", dict.fromkeys(RUNGS, 1.0)), reports, predictions


def test_honest_figures_are_right(task, world):
    assert wrong_figures(task, *world, RECORDS) == []


@pytest.mark.parametrize(
    ("rung", "figure", "value"),
    [
        ("int4", "score_low", 0.99),
        ("teacher", "score", 0.1),
        ("int4", "request_ms_p50", 1.0),
        ("int4", "n", 9),
    ],
)
def test_a_figure_of_the_ladder_that_was_changed_is_named(task, world, rung: str, figure: str, value: float):
    ladder = copy.deepcopy(world[0])
    next(r for r in ladder["rungs"] if r["name"] == rung)[figure] = value
    assert wrong_figures(task, ladder, *world[1:], RECORDS) == [f"{rung}.{figure}"]


def test_a_quality_report_that_was_changed_with_its_ladder_is_named(task, world):
    ladder, reports, predictions = world
    path = reports / "quality" / "teacher.json"
    write_json(path, read_json(path) | {"score": 0.1})
    ladder = build(reports, "t", "quick", dict.fromkeys(RUNGS, 1.0))
    assert wrong_figures(task, ladder, reports, predictions, RECORDS) == [f"{path}: score"]


def test_expected_answers_are_those_of_the_test_set(task, world):
    ladder, reports, predictions = world
    path = predictions / "int4.jsonl"
    header, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    forged = [r | {"expected": r["answer"]} for r in rows]
    assert [r["expected"] for r in with_true_labels(forged, RECORDS)] == [RIGHT] * 4
    write_jsonl(path, [header, *forged])
    quality = reports / "quality" / "int4.json"
    write_json(quality, read_json(quality) | summarise(task, forged))
    ladder = build(reports, "t", "quick", dict.fromkeys(RUNGS, 1.0))
    assert f"{quality}: score" in wrong_figures(task, ladder, reports, predictions, RECORDS)


def test_missing_predictions_are_named(task, world):
    (world[2] / "base.jsonl").unlink()
    assert wrong_figures(task, *world, RECORDS) == [f"{world[2] / 'base.jsonl'} is missing or empty"]


def test_numbers_may_differ_in_their_last_digits_only():
    assert alike({"a": [1], "b": 0.1 + 0.2}, {"a": [1], "b": 0.3})
    assert alike(1.0, 1)
    for one, other in (
        (0.3, 0.31),
        (0.3, None),
        (0.3, True),
        (0.3, "0.3"),
        (None, 0.3),
        (float("nan"), float("nan")),
        ({"a": 1}, {}),
    ):
        assert not alike(one, other)


def test_papers_name_every_file_of_the_package(tmp_path: Path):
    for name in ("README.md", "task.yaml"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_text("weights", encoding="utf-8")

    def bill(*names: str) -> str | None:
        """What is said of the papers once the bill of materials names these files, and the checksums are
        right.
        """
        parts = [
            {
                "type": "file",
                "name": n,
                "hashes": [{"content": sha256_file(tmp_path / "model" / "model.onnx")}],
            }
            for n in names
        ]
        write_json(tmp_path / "sbom.cdx.json", {"components": [*parts, {"type": "library", "name": "torch"}]})
        (tmp_path / "SHA256SUMS").write_text(checksums(tmp_path), encoding="utf-8")
        return wrong_papers(tmp_path)

    assert bill() == "sbom.cdx.json names other files than those in model/"
    assert bill("model.onnx", "other.onnx") == "sbom.cdx.json names other files than those in model/"
    assert bill("model.onnx") is None
    (tmp_path / "task.yaml").write_text("changed", encoding="utf-8")
    assert wrong_papers(tmp_path) == "SHA256SUMS does not name these files"
    (tmp_path / "sbom.cdx.json").unlink()
    assert wrong_papers(tmp_path) == "sbom.cdx.json is missing"
