"""Synthetic data, judged by Great Expectations before a student learns from it."""

from collections import Counter
from pathlib import Path
from typing import Any

from slm.files import read_jsonl, write_json
from slm.progress import print_closing_line
from slm.quality.expectations import explain_failures, validate
from slm.quality.frame import frame, summary
from slm.quality.leaks import Leaks
from slm.stage import stage
from slm.task.definition import load_task
from slm.task.records import TASK, Record, read_records, refuse

INPUT = Path("data/synthetic.jsonl")
INVENTED = Path("data/invented.jsonl")
SUITE = TASK / "expectations" / "synthetic.json"
OUTPUT = Path("reports/synthetic.json")


def dropped(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of the rows each filter dropped, and what the first of them were."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["dropped"]:
            reasons.setdefault(row["dropped"].split(":")[0], []).append(f"{row['id']}: {row['dropped']}")
    return {
        "dropped_for": {name: len(found) for name, found in reasons.items()},
        "dropped_samples": {name: found[:5] for name, found in reasons.items()},
    }


@stage
def main() -> None:
    # Read the synthetic records, and the held-out ones that they must not repeat
    task = load_task()
    rows = read_jsonl(INPUT)
    records = [Record(row["id"], row["messages"], row["tags"]) for row in rows]
    held_out = Leaks(
        [
            (f"{TASK}/{name}.jsonl:{r.line}", r)
            for name in ("validation", "test")
            for r in read_records(TASK / f"{name}.jsonl", True)
        ]
    )
    table = frame(task, records, held_out)
    table["dropped"] = [row["dropped"] for row in rows]
    # A dropped record is not trained on, so it may be a copy
    table.loc[table["dropped"].notna(), ["leak", "hidden_leak", "normal_text"]] = None

    # Run the suite of Great Expectations
    report = validate(SUITE, {str(INPUT): table}, {str(INPUT): list(range(1, len(rows) + 1))})
    if not report["passed"]:
        refuse([explain_failures(report, SUITE)], [explain_failures(report, SUITE, None)])

    # Count what was kept, and what each filter dropped
    invented = read_jsonl(INVENTED)
    kept = [record for record, row in zip(records, rows, strict=True) if row["dropped"] is None]
    traced = sum(
        row["dropped"] is None
        and bool(row["provenance"].get("teacher"))
        and bool(row["provenance"].get("prompt"))
        for row in rows
    )
    facts = {
        "asked": len(rows),
        "kept": len(kept),
        "with_provenance": traced,
        **dropped(rows),
        "summary_before": summary(task, records),
        "summary": summary(task, kept),
        "suites": [report],
    }
    if invented:
        passed = Counter(row["provenance"]["recipe"] for row in invented if row["dropped"] is None)
        facts["invented"] = {
            "asked": len(invented),
            "kept": passed.total(),
            "recipes": dict(passed),
            **dropped(invented),
        }
    write_json(OUTPUT, facts)
    print_closing_line("validate", {"asked": len(rows), "kept": len(kept)})


if __name__ == "__main__":
    main()
