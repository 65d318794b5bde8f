"""Facts that do not follow from what they were made from are named."""

from dataclasses import replace
from pathlib import Path

import pytest

from slm.evaluation.ladder import RUNGS, build_ladder
from slm.export.packaging import checksums, wrong_documents
from slm.files import sha256_file, write_json
from slm.task.metrics import summarise
from slm.verdict.facts import Facts
from slm.verdict.integrity import alike, with_true_labels, wrong_figures
from tests.verdict_facts import RECORDS, RIGHT, honest_facts


def test_honest_figures_are_right(task):
    assert wrong_figures(honest_facts(task)) == []


@pytest.mark.parametrize(
    ("rung", "figure", "value"),
    [
        ("int4", "score_low", 0.99),
        ("teacher", "score", 0.1),
        ("int4", "request_ms_p50", 1.0),
        ("int4", "n", 9),
    ],
)
def test_a_figure_of_the_ladder_that_was_changed_is_named(task, rung: str, figure: str, value: float):
    facts = honest_facts(task)
    next(r for r in facts.ladder["rungs"] if r["name"] == rung)[figure] = value
    assert wrong_figures(facts) == [f"{rung}.{figure}"]


def with_ladder_of(facts: Facts) -> Facts:
    """The ladder made again, as whoever forges the reports below it would."""
    ladder = build_ladder(facts.quality, facts.cost, "t", "quick", dict.fromkeys(RUNGS, 1.0))
    return replace(facts, ladder=ladder)


def test_a_quality_report_that_was_changed_with_its_ladder_is_named(task):
    facts = honest_facts(task)
    facts.quality["teacher"]["score"] = 0.1
    assert wrong_figures(with_ladder_of(facts)) == ["reports/quality/teacher.json: score"]


def test_expected_answers_are_those_of_the_test_set(task):
    facts = honest_facts(task)
    rows = facts.predictions["int4"][1:]
    forged = [row | {"expected": row["answer"]} for row in rows]
    assert [row["expected"] for row in with_true_labels(forged, RECORDS)] == [RIGHT] * 4
    facts.predictions["int4"][1:] = forged
    facts.quality["int4"] |= summarise(task, forged)
    assert "reports/quality/int4.json: score" in wrong_figures(with_ladder_of(facts))


@pytest.mark.parametrize("where", ["predictions", "quality"])
def test_missing_facts_of_a_rung_are_named(task, where: str):
    facts = honest_facts(task)
    del getattr(facts, where)["base"]
    name = {"predictions": "predictions/base.jsonl", "quality": "reports/quality/base.json"}[where]
    assert wrong_figures(facts) == [f"{name} is missing or empty"]


def test_a_rung_that_the_ladder_forgot_is_named(task):
    facts = honest_facts(task)
    facts.ladder["rungs"] = facts.ladder["rungs"][:-1]
    assert wrong_figures(facts) == []  # the shipped rung is missed by the gates over it
    del facts.cost["rungs"]["int4"]["by_threads"]["1"]["rss_mb"]
    assert "the ladder cannot be made again" in wrong_figures(facts)[0]


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
        """What the check says once the bill of materials names these files, and the checksums are right."""
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
        return wrong_documents(tmp_path)

    assert bill() == "sbom.cdx.json names other files than those in model/"
    assert bill("model.onnx", "other.onnx") == "sbom.cdx.json names other files than those in model/"
    assert bill("model.onnx") is None
    (tmp_path / "task.yaml").write_text("changed", encoding="utf-8")
    assert wrong_documents(tmp_path) == "SHA256SUMS does not name these files"
    (tmp_path / "sbom.cdx.json").unlink()
    assert wrong_documents(tmp_path) == "sbom.cdx.json is missing"
