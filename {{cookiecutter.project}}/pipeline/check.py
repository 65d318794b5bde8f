"""Labelled data and prompts, judged by Great Expectations before anything costs time or money."""

from pathlib import Path

from slm.errors import UserError
from slm.files import write_json
from slm.progress import print_closing_line
from slm.quality.expectations import explain_failures, validate
from slm.quality.frame import frame, summary
from slm.quality.label_errors import doubtful_labels
from slm.quality.similarity import Index, similarity
from slm.stage import stage
from slm.task.definition import load_task
from slm.task.records import TASK, read_records

OUTPUT = Path("reports/data.json")
# Training depends on this file. It holds nothing of the data, so that a change of the test set alone trains
# nothing again.
JUDGED = Path("reports/judged.json")
SPLITS = {"train": True, "validation": True, "test": True, "prompts": False}


@stage
def main() -> None:
    # Read all data of the task
    task = load_task()
    splits = {
        name: read_records(TASK / f"{name}.jsonl", answered)
        for name, answered in SPLITS.items()
        if name != "prompts" or (TASK / "prompts.jsonl").exists()
    }

    # Find the nearest held-out example of each: training data must not be near validation or test,
    # validation not near test
    test = Index([(f"{TASK}/test.jsonl:{r.line}", r.asked) for r in splits["test"]])
    held_out = Index(
        [(f"{TASK}/{name}.jsonl:{r.line}", r.asked) for name in ("validation", "test") for r in splits[name]]
    )
    against = {"train": held_out, "prompts": held_out, "validation": test, "test": None}
    frames = {name: frame(task, records, against[name]) for name, records in splits.items()}

    # Run the suites of Great Expectations
    reports = []
    for suite, names in {"labelled": ("train", "validation", "test"), "prompts": ("prompts",)}.items():
        path = TASK / "expectations" / f"{suite}.json"
        files = {f"{TASK}/{name}.jsonl": name for name in names if name in frames}
        report = validate(
            path,
            {f: frames[n] for f, n in files.items()},
            {f: [r.line for r in splits[n]] for f, n in files.items()},
        )
        reports.append((path, report))
    failed = [explain_failures(report, path) for path, report in reports if not report["passed"]]
    if failed:
        raise UserError("\n".join(failed))

    # Write the facts
    facts = {
        "splits": {name: summary(task, records) for name, records in splits.items()},
        "nearest_in_train": {
            name: similarity(splits["train"], splits[name]) for name in ("validation", "test")
        },
        "suites": [report for _, report in reports],
        "doubtful": doubtful_labels(
            task, {name: records for name, records in splits.items() if SPLITS[name]}
        ),
    }
    write_json(OUTPUT, facts)
    write_json(JUDGED, {"judged": list(splits)})
    print_closing_line("check", {name: len(records) for name, records in splits.items()})


if __name__ == "__main__":
    main()
