"""The ladder: from the teacher to what ships, one row a rung (contracts/ladder.schema.json)."""

from pathlib import Path
from typing import Any

from slm.files import read_json

RUNGS = ("teacher", "base", "distilled", "finetuned", "onnx", "int8", "int4")
# What every report of `evaluate` has: hashes of the model's bytes, and figures of its answers.
QUALITY = (
    "weights_sha256",
    "folder_sha256",
    "n",
    "score",
    "score_low",
    "score_high",
    "field_f1",
    "valid_rate",
)
# Figures of answers that a report may lack. A new one goes here, even if every kind of task has it.
BESIDE = ("macro_f1", "exact_match", "token_f1", "rouge_l", "chrf", "bleu")
COST_FIGURES = ("ttft_ms_p50", "request_ms_p50", "request_ms_p95", "decode_tokens_per_s", "rss_mb")


def read_quality(reports: Path) -> dict[str, dict[str, Any]]:
    """The quality reports that there are, by rung."""
    paths = {name: reports / "quality" / f"{name}.json" for name in RUNGS}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def build_ladder(
    quality: dict[str, dict[str, Any]],
    cost: dict[str, Any],
    task: str,
    profile: str,
    parameters: dict[str, float | None],
) -> dict[str, Any]:
    """Put the facts of `evaluate` and `measure` side by side.

    Args:
        quality: reports/quality, by rung.
        cost: reports/cost.json.
        parameters: millions of parameters of each rung.

    Raises:
        KeyError: a rung or a figure is missing.
    """
    threads = str(cost["threads"])
    rungs = []
    for name in RUNGS:
        found = quality[name]
        measured = cost["rungs"].get(name)
        row = (
            {"name": name}
            | {k: found[k] for k in QUALITY}
            | {k: found[k] for k in BESIDE if k in found}
            | {"parameters_m": parameters.get(name)}
        )
        row["weights_mb"] = measured["weights_mb"] if measured else None
        row |= {k: measured["by_threads"][threads][k] if measured else None for k in COST_FIGURES}
        rungs.append(row)
    return {
        "task": task,
        "profile": profile,
        "test_sha256": quality["teacher"]["test_sha256"],
        "threads": cost["threads"],
        "machine": cost["machine"],
        "rungs": rungs,
    }


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def ladder_table(ladder: dict[str, Any]) -> list[list[str]]:
    """Rows of text for a person, the header first."""
    rows = [["rung", "score", "95%", "n", "valid", "ms", "time", "RSS MB", "weights MB", "size"]]
    teacher = ladder["rungs"][0]
    for r in ladder["rungs"]:
        time = (
            r["request_ms_p50"] / teacher["request_ms_p50"]
            if r["request_ms_p50"] and teacher["request_ms_p50"]
            else None
        )
        size = r["weights_mb"] / teacher["weights_mb"] if r["weights_mb"] and teacher["weights_mb"] else None
        rows.append(
            [
                r["name"],
                _number(r["score"], ".3f"),
                f"{r['score_low']:.3f}–{r['score_high']:.3f}",
                str(r["n"]),
                _number(r["valid_rate"], ".3f"),
                _number(r["request_ms_p50"], ".0f"),
                _number(time, ".0%"),
                _number(r["rss_mb"], ".0f"),
                _number(r["weights_mb"], ".1f"),
                _number(size, ".0%"),
            ]
        )
    return rows
