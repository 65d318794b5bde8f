"""The report: what the facts of this checkout say, as one page that needs no network and no script.

    python -m slm.report.page      writes reports/report.html

slm/report/sections.py turns facts into rows of text and numbers, slm/report/report.html.j2 lays them out.
What was not run is left out.
"""

import argparse
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from slm.config.params import load_params
from slm.errors import UserError, stage
from slm.evaluation.ladder import ladder_table
from slm.files import read_json, read_jsonl, write_text
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
from slm.verdict.gate import REPORTS, judge
from slm.verdict.rows import Row, headline

REPORT = REPORTS / "report.html"
TRAINED = {"teach": "Teacher", "distill": "Student, distilled", "finetune": "Student, finetuned"}
SHOWN_ERRORS = 25


def read_if_there(path: Path) -> Any:
    """Facts that may be absent: a stage that did not run leaves its part of the page out, it does not break
    the page.
    """
    return read_json(path) if path.exists() else None


def gather() -> Row:
    """All that the page shows, from the facts of this checkout."""
    params, task = load_params(), load_task()
    shipped = params.package.variant
    quality = read_if_there(REPORTS / "quality" / f"{shipped}.json")
    if quality is None:
        raise UserError(
            f"{REPORTS}/quality/{shipped}.json: no such file; run `dvc repro` first (or `dvc pull`)"
        )
    verdict = judge()
    facts = {
        name: read_if_there(REPORTS / f"{name}.json")
        for name in ("ladder", "cost", "data", "synthetic", "seeds", *TRAINED)
    }
    ladder, checked, synthetic, distilled = (
        facts[name] for name in ("ladder", "data", "synthetic", "distill")
    )
    predictions, asked = (
        read_jsonl(Path("predictions") / f"{shipped}.jsonl")[1:],
        Path("predictions/teacher.jsonl"),
    )
    wrong = errors(
        task, predictions, {p["id"]: p["answer"] for p in read_jsonl(asked)[1:]} if asked.exists() else {}
    )
    forms = {
        kind: {p.stem: read_if_there(p) for p in sorted((REPORTS / kind).glob("*.json"))}
        for kind in ("convert", "quantize")
    }
    curves = [
        (title, curve(read_if_there(REPORTS / "curves" / f"{name}.json") or []), facts[name])
        for name, title in TRAINED.items()
    ]
    return {
        "name": params.package.name, "task": task, "shipped": shipped, "ladder": ladder, "verdict": verdict, "headline": headline(verdict),
        "gates": gates(verdict), "tiles": tiles(ladder, shipped), "panels": panels(ladder, shipped), "table_rows": ladder_table(ladder),
        "cost": facts["cost"], "curves": curves, "confusion": confusion(task, predictions), "slices": slice_rows(quality),
        "errors": [e | dict(zip(("want", "got"), difference(e["expected"], e["answer"]), strict=True)) for e in wrong[:SHOWN_ERRORS]],
        "wrong": len(wrong), "asked": len(predictions), "doubtful": doubtful(task, wrong), "layers": layers(distilled) if distilled else None,
        "conversions": conversions(**forms), "data": data(checked) if checked else None,
        "seeds": of_this_student(facts["seeds"], ladder, shipped),
        "synthetic": synthesized(synthetic) if synthetic else None, "origins": origins(ladder, verdict, params),
    }  # fmt: skip


def render(page: Row) -> str:
    """The page; everything from data is escaped, and a fact that the template misspells is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page)


@stage
def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    write_text(REPORT, render(gather()))
    print(f"{REPORT}: open it in any browser")


if __name__ == "__main__":
    main()
