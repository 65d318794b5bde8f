"""Labelled data and prompts, judged by Great Expectations before anything costs time or money."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from transformers import AutoConfig

from slm.config.loader import load_yaml
from slm.config.params import Params, load_params
from slm.errors import UserError
from slm.files import write_json
from slm.modeling.checkpoints import load_tokenizer
from slm.modeling.encoding import keep_contents_plain, too_long, use_short_template
from slm.progress import print_closing_line
from slm.quality.expectations import explain_failures, validate
from slm.quality.frame import frame, hidden_leaks, summary
from slm.quality.label_errors import doubtful_labels
from slm.quality.leaks import Leaks
from slm.quality.similarity import similarity
from slm.stage import stage
from slm.task.definition import load_task
from slm.task.records import DATA_ERRORS, TASK, Record, fixed_sample, read_files, refuse

OUTPUT = Path("reports/data.json")
# Training depends on this file. It holds nothing of the data, so that a change of the test set alone trains
# nothing again.
JUDGED = Path("reports/judged.json")
SPLITS = {"train": True, "validation": True, "test": True, "prompts": False}
HELD_OUT = ("validation", "test")
CONTRACT = Path("gates.yaml")
# The checkpoints whose tokenizers read the requests. Only a student of its own has one in models/own.
MODELS = [Path("models/base"), Path("models/own")]


class Asked(BaseModel):
    """What the contract asks of the suites; all else in it is the gate's to read."""

    required_expectations: list[str] | None = None


def required_columns() -> list[str]:
    """Columns that the labelled suite must judge, lest the gate miss them after hours of training.

    dvc.yaml does not name the contract as an input. It changes nothing that this stage writes, and an edit of
    a limit must not make dvc.lock stale. A suite is an input, so what is removed from it is seen.
    """
    return (load_yaml(CONTRACT, Asked).required_expectations or []) if CONTRACT.exists() else []


def beyond_context(model: Path, params: Params, named: list[tuple[str, Record]]) -> list[str]:
    """Requests that this checkpoint cannot read as a whole and answer; none where there is no checkpoint."""
    if not (model / "config.json").exists():
        return []
    tokenizer = load_tokenizer(model)
    use_short_template(tokenizer)
    own: int = AutoConfig.from_pretrained(model, local_files_only=True).max_position_embeddings
    limits = {
        "evaluate.max_new_tokens": params.evaluate.max_new_tokens,
        "measure.max_new_tokens": params.measure.max_new_tokens,
    }
    if params.synthesize.teacher == "local":
        limits["synthesize.max_new_tokens"] = params.synthesize.max_new_tokens
    name = max(limits, key=lambda name: limits[name])
    return too_long(tokenizer, min(own, params.models.context or own), (limits[name], name), named)


def beyond_untaught(instruction: str, params: Params, test: list[Record]) -> list[str]:
    """The test requests that the base model, which must be told what to do, cannot read as a whole and
    answer.
    """
    model = MODELS[0]
    if not (model / "config.json").exists():
        return []
    tokenizer = load_tokenizer(model)
    keep_contents_plain(tokenizer)
    own: int = AutoConfig.from_pretrained(model, local_files_only=True).max_position_embeddings
    told = [
        (
            f"{TASK}/test.jsonl:{r.line}, after the instruction of task.yaml",
            replace(r, messages=[{"role": "system", "content": instruction}, *r.prompt]),
        )
        for r in fixed_sample(test, params.evaluate.sample["base"], params.seed)
    ]
    return too_long(tokenizer, own, (params.evaluate.max_new_tokens, "evaluate.max_new_tokens"), told)


def warn_of_hidden(hidden: dict[str, list[str]]) -> None:
    """The suites let a few pass, which chance explains. So a person must hear of them."""
    for file, said in hidden.items():
        if said:
            print(
                f"{file}: {len(said)} records may hide a held-out one, such as {said[0]}; see hidden_leaks "
                f"in {OUTPUT}, and remove one of the two where it is no chance",
                file=sys.stderr,
            )


def run_suites(frames: dict[str, pd.DataFrame], splits: dict[str, list[Record]]) -> list[dict[str, Any]]:
    """The reports of the suites, which have passed. What is wrong with any of them is said in one run.

    Raises:
        UserError: an expectation failed, or a suite cannot be run.
    """
    reports: list[dict[str, Any]] = []
    failed: list[str] = []
    whole: list[str] = []
    for suite, names in {"labelled": ("train", "validation", "test"), "prompts": ("prompts",)}.items():
        path = TASK / "expectations" / f"{suite}.json"
        files = {f"{TASK}/{name}.jsonl": name for name in names if name in frames}
        try:
            report = validate(
                path,
                {f: frames[n] for f, n in files.items()},
                {f: [r.line for r in splits[n]] for f, n in files.items()},
                required_columns() if suite == "labelled" else [],
            )
        except UserError as error:
            failed.append(str(error))
            whole.append(str(error))
            continue
        reports.append(report)
        if not report["passed"]:
            failed.append(explain_failures(report, path))
            whole.append(explain_failures(report, path, None))
    try:
        # Its data comes later, after hours of training: what cannot be run is said now
        later = [*map(str, frames["train"].columns), "dropped"]
        validate(TASK / "expectations" / "synthetic.json", {}, {}, columns=later)
    except UserError as error:
        failed.append(str(error))
        whole.append(str(error))
    refuse(failed, whole)
    return reports


@stage
def main() -> None:
    # Read all data of the task
    task = load_task()
    data = {TASK / f"{name}.jsonl": answered for name, answered in SPLITS.items()}
    if not (TASK / "prompts.jsonl").exists():
        del data[TASK / "prompts.jsonl"]
    splits = {path.stem: records for path, records in read_files(data).items()}
    DATA_ERRORS.unlink(missing_ok=True)

    # Check that requests fit into the model's context
    params = load_params()
    named = [(f"{TASK}/{name}.jsonl:{r.line}", r) for name, records in splits.items() for r in records]
    faults = [fault for model in MODELS for fault in beyond_context(model, params, named)]
    refuse(faults or beyond_untaught(task.instruction, params, splits["test"]))

    # Find held-out examples in what is trained on: none of validation or test in training data, none of test
    # in validation
    held_out = {split: [(f"{TASK}/{split}.jsonl:{r.line}", r) for r in splits[split]] for split in HELD_OUT}
    test, both = Leaks(held_out["test"]), Leaks([*held_out["validation"], *held_out["test"]])
    against = {"train": both, "prompts": both, "validation": test, "test": None}
    frames = {name: frame(task, records, against[name]) for name, records in splits.items()}
    hidden = {
        f"{TASK}/{n}.jsonl": hidden_leaks(f"{TASK}/{n}.jsonl", splits[n], table)
        for n, table in frames.items()
    }
    warn_of_hidden(hidden)

    # Run the suites of Great Expectations
    reports = run_suites(frames, splits)

    # Write the facts
    facts = {
        "splits": {name: summary(task, records) for name, records in splits.items()},
        "nearest_in_train": {name: similarity(splits["train"], splits[name]) for name in HELD_OUT},
        "hidden_leaks": hidden,
        "suites": reports,
        "doubtful": doubtful_labels(
            task, {name: records for name, records in splits.items() if SPLITS[name]}
        ),
    }
    write_json(OUTPUT, facts)
    write_json(JUDGED, {"judged": list(splits)})
    print_closing_line("check", {name: len(records) for name, records in splits.items()})


if __name__ == "__main__":
    main()
