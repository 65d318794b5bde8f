"""The report: what the facts of this checkout say, as one page that needs no network and no script.

    slm report      writes reports/report.html

slm/report/sections.py turns facts into rows of text and numbers, slm/report/report.html.j2 lays them out.
What was not run is left out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from slm.config.params import load_params
from slm.errors import UserError
from slm.evaluation.ladder import ladder_table
from slm.files import Json, read_json, read_jsonl, sha256_file, write_text
from slm.git import git_line
from slm.inference.sandbox import chosen_sandbox
from slm.report.sections import (
    confusion,
    conversions,
    curve,
    data,
    difference,
    doubtful,
    errors,
    gates,
    layers,
    of_this_student,
    origins,
    panels,
    slice_rows,
    synthesized,
    tiles,
)
from slm.task.definition import load_task
from slm.task.records import Prediction, fixed_sample, read_records
from slm.verdict.contract import CONTRACT
from slm.verdict.facts import PREDICTIONS, REPORTS
from slm.verdict.inspection import inspect
from slm.verdict.judge import VALIDATION, VALIDATION_EXAMPLES, ask_records
from slm.verdict.rows import Verdict, headline

REPORT = REPORTS / "report.html"
TRAINED = {"teach": "Teacher", "distill": "Student, distilled", "finetune": "Student, finetuned"}
SHOWN_ERRORS = 25


def read_if_there(path: Path) -> Any:
    """Facts that may be absent: a stage that did not run leaves its part of the page out, it does not break
    the page.
    """
    return read_json(path) if path.exists() else None


def verdict_of_this_model(ladder: Json, shipped: str) -> Verdict | None:
    """What `slm gate` has said, unless model or contract have changed since: it is not judged again here."""
    path = REPORTS / "verdict.json"
    if not path.exists():
        return None
    verdict = Verdict.from_json(read_json(path))
    row: Json = next((r for r in ladder["rungs"] if r["name"] == shipped), {})
    same_model = verdict.candidate.get("folder_sha256") == row.get("folder_sha256")
    return verdict if same_model and verdict.contract_sha256 == sha256_file(CONTRACT) else None


def answer_examples() -> list[Prediction]:
    """What the package here answers to a few validation examples. The page shows no text of the test set: who
    reads its errors would mend a model by them.
    """
    params = load_params()
    model = Path("dist") / params.package.name / "model"
    if not model.exists():
        return []
    records = fixed_sample(read_records(VALIDATION, True), VALIDATION_EXAMPLES, params.seed)
    sandbox = chosen_sandbox()  # whoever filled a remote may have made this package
    inspect(model, sandbox)
    return ask_records(model, records, params, "examples", sandbox)


def gather(ask: Callable[[], list[Prediction]] = answer_examples) -> Json:
    """All that the page shows, from the facts of this checkout and the answers to a few examples."""
    params, task = load_params(), load_task()
    shipped = params.package.variant
    quality = read_if_there(REPORTS / "quality" / f"{shipped}.json")
    if quality is None:
        raise UserError(
            f"{REPORTS}/quality/{shipped}.json: no such file; run `slm repro` first (or `slm pull`)"
        )
    names = ("ladder", "cost", "data", "synthetic", "seeds", *TRAINED)
    facts = {name: read_if_there(REPORTS / f"{name}.json") for name in names}
    ladder, distilled = facts["ladder"], facts["distill"]
    verdict = verdict_of_this_model(ladder, shipped)
    predictions = read_jsonl(PREDICTIONS / f"{shipped}.jsonl")[1:]
    asked = PREDICTIONS / "teacher.jsonl"
    teachers = {p["id"]: p["answer"] for p in read_jsonl(asked)[1:]} if asked.exists() else {}
    examples = ask()
    wrong, shown = errors(task, predictions, teachers), errors(task, examples, {})
    variants = {
        kind: {p.stem: read_if_there(p) for p in sorted((REPORTS / kind).glob("*.json"))}
        for kind in ("convert", "quantize")
    }
    curves = [
        (title, curve(read_if_there(REPORTS / "curves" / f"{name}.json") or []), facts[name])
        for name, title in TRAINED.items()
    ]
    return {
        "name": params.package.name,
        "task": task,
        "shipped": shipped,
        "verdict": verdict,
        "headline": headline(verdict) if verdict else "This model is not judged yet: run `slm gate`.",
        "gates": gates(verdict) if verdict else [],
        "ladder": ladder,
        "tiles": tiles(ladder, shipped),
        "panels": panels(ladder, shipped),
        "table_rows": ladder_table(ladder),
        "cost": facts["cost"],
        "curves": curves,
        "confusion": confusion(task, predictions),
        "slices": slice_rows(quality),
        "errors": [
            e | dict(zip(("want", "got"), difference(e["expected"], e["answer"]), strict=True))
            for e in shown[:SHOWN_ERRORS]
        ],
        "wrong": len(shown),
        "examples": len(examples),
        "asked": len(predictions),
        "doubtful": doubtful(task, wrong),
        "layers": layers(distilled) if distilled else None,
        "conversions": conversions(**variants),
        "data": data(facts["data"]) if facts["data"] else None,
        "seeds": of_this_student(facts["seeds"], ladder, shipped),
        "synthetic": synthesized(facts["synthetic"]) if facts["synthetic"] else None,
        "origins": origins(ladder, git_line("rev-parse", "HEAD"), params),
    }


def render(page: Json) -> str:
    """The page; everything from data is escaped, and a fact that the template misspells is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page)


def write_report() -> None:
    write_text(REPORT, render(gather()))
    print(f"{REPORT}: open it in any browser")
