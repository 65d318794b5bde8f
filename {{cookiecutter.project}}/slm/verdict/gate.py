"""The verdict: one comparison of facts with the contract. It measures nothing and decides everything.

python -m slm.verdict.gate                    prints a table, writes reports/verdict.json and verdict.md, exits 1 if a blocking gate fails
python -m slm.verdict.gate --explain NAME     one gate: its evidence, what changed since the released model, how to make its figure again
python -m slm.verdict.gate --json             prints the verdict's JSON (--markdown: its Markdown) in place of the table

A failed gate that waivers.yaml names is shown as waived and refuses nothing. A waiver counts once it is on
the default branch, so
that no pull request waives its own gates: see `waivers_in_force`. (In pr.yml this code is the pull request's
too: that verdict is feedback, and the judge, in the default branch's checkout, has the last word.)
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from slm.config.loader import parse_yaml
from slm.config.params import load_params
from slm.errors import UserError, stage
from slm.evaluation.ladder import ladder_table
from slm.files import (
    folder_mb,
    folder_sha256,
    read_json,
    read_jsonl,
    sha256_file,
    weights_sha256,
    write_json,
    write_text,
)
from slm.git import file_at, git_line
from slm.tables import plain
from slm.task.definition import load_task
from slm.task.metrics import score_one
from slm.task.records import TASK, read_records
from slm.verdict.baseline import blame, judge_baseline
from slm.verdict.changes import knobs_diff, loosening
from slm.verdict.contract import CONTRACT, Contract, load_contract
from slm.verdict.cost import how_sure, judge_rounds
from slm.verdict.data_figures import data_figures
from slm.verdict.explain import explain_gate
from slm.verdict.integrity import judge_claims, judge_integrity, with_true_labels
from slm.verdict.limits import judge_metric
from slm.verdict.policy import judge_data, judge_licences
from slm.verdict.released import RELEASED, predictions_of
from slm.verdict.rows import as_markdown, headline, rows_of, verdict
from slm.verdict.waivers import WAIVERS, Waiver, Waivers, load_waivers, waive

REPORTS = Path("reports")


def _weakened(revision: str | None) -> list[str]:
    """How the contract is looser than at the baseline revision (the released one, else the first commit that
    has it).
    """
    if revision is None:
        log = git_line("log", "--format=%H", "--diff-filter=A", "--", str(CONTRACT))
        revision = log.splitlines()[-1] if log else None
    return loosening(revision, None) if revision else []


def waivers_in_force(contract: Contract) -> list[Waiver]:
    """Those of origin/HEAD, in a pull request's workflow those of the branch that it goes to; of this
    checkout where there is neither.

    A mistake in this checkout's file is an error in any case, so that it is seen before it is merged.
    """
    own = load_waivers(contract)
    for branch in ("HEAD", os.environ.get("GITHUB_BASE_REF")):
        if branch and git_line("rev-parse", "--verify", "--quiet", f"origin/{branch}^{{commit}}"):
            text = file_at(f"origin/{branch}", str(WAIVERS))
            return (
                parse_yaml(text, f"{WAIVERS} of origin/{branch}", Waivers).waivers if text is not None else []
            )
    return own


def judge() -> dict[str, Any]:
    """Read the facts of this checkout and judge them."""
    params, task, contract = load_params(), load_task(), load_contract()
    waivers = waivers_in_force(contract)
    shipped = params.package.variant
    needed = ("ladder.json", "cost.json", f"quality/{shipped}.json", f"../predictions/{shipped}.jsonl")
    missing = [REPORTS / name for name in needed if not (REPORTS / name).exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; run `dvc repro` first (or `dvc pull`)")
    ladder, cost = read_json(REPORTS / "ladder.json"), read_json(REPORTS / "cost.json")
    released = read_json(RELEASED)
    header, *predictions = read_jsonl(Path("predictions") / f"{shipped}.jsonl")
    package = Path("dist") / params.package.name / "model"
    test_ids = [
        json.loads(line)["id"]
        for line in (TASK / "test.jsonl").read_text(encoding="utf-8").split("\n")
        if line
    ]

    records = read_records(TASK / "test.jsonl", answered=True) if test_ids else []
    predictions = with_true_labels(predictions, records)
    scores = [score_one(task, p["expected"], p["answer"])["score"] for p in predictions]
    facts = {
        "header": header,
        "quality": read_json(REPORTS / "quality" / f"{shipped}.json"),
        "ladder_row": next((r for r in ladder["rungs"] if r["name"] == shipped), {}),
        "package_folder_sha256": folder_sha256(package) if package.exists() else None,
        "package_weights_sha256": weights_sha256(package) if package.exists() else None,
        "cost_folder_sha256": cost["rungs"].get(shipped, {}).get("folder_sha256"),
        "test_sha256": sha256_file(TASK / "test.jsonl"),
        "test_ids": test_ids,
        "answered_ids": [p["id"] for p in predictions],
        "rescored": sum(scores) / len(scores) if scores else 0.0,
    }
    baselines = {name: predictions_of(released.get(name)) for name in ("released", "best")}
    baseline = released.get("released")
    data, synthetic = (
        read_json(path) if path.exists() else None
        for path in (REPORTS / "data.json", REPORTS / "synthetic.json")
    )
    rows = [
        *judge_integrity(facts),
        judge_rounds(cost),
        *judge_licences(contract, params.licences, task.license),
    ]
    rows += judge_data(contract, data)
    rows += judge_claims(task, ladder, records, package.parent)
    made_from = (
        data_figures(task, data, synthetic, baseline["revision"] if baseline else None) if data else {}
    )
    beside = [{"name": "data", **made_from}, {"name": "package", "mb": folder_mb(package.parent)}]
    absent = {}
    if params.synthesize.teacher == "endpoint":
        absent["teacher"] = "the teacher is an endpoint, without time, memory and weights of its own here"
    if "drift" not in made_from:
        absent["data.drift"] = (
            "train.jsonl of the released commit is not in this clone"
            if baseline
            else "nothing is released yet"
        )
    if data and not data.get("doubtful", {"looked_at": 1})["looked_at"]:
        absent["data.doubtful_labels"] = "no class of an answer has enough examples to tell"
    if data and not any(data["splits"]["train"]["classes"]):
        absent |= dict.fromkeys(
            ("data.largest_class", "data.fewest_examples"), "the answers of this task have no classes"
        )
    figures = {"rungs": [*ladder["rungs"], *beside]}
    for gate in contract.gates:
        judged = judge_metric(gate, figures, shipped, absent)
        rows.append(judged | {"why": judged["why"] + how_sure(gate, cost, shipped)})
    rows += judge_baseline(contract, task, predictions, baselines)
    candidate = {
        "revision": git_line("rev-parse", "HEAD"),
        "weights_sha256": facts["package_weights_sha256"],
        "folder_sha256": facts["package_folder_sha256"],
    }
    blame(rows, knobs_diff(baseline["revision"], None) if baseline else [])
    waive(rows, waivers)
    return verdict(rows, candidate, baseline, _weakened(baseline["revision"] if baseline else None))


@stage
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--explain", metavar="NAME", help="one gate: its evidence, what changed, how to make its figure again"
    )
    shown.add_argument("--json", action="store_true", help="print the verdict as JSON, and nothing else")
    shown.add_argument("--markdown", action="store_true", help="print it as Markdown, and nothing else")
    arguments = parser.parse_args()
    result = judge()
    if arguments.explain is not None:
        print(explain_gate(arguments.explain, result), end="")
        return
    ladder = read_json(REPORTS / "ladder.json")
    write_json(REPORTS / "verdict.json", result)
    write_text(REPORTS / "verdict.md", as_markdown(result, ladder))
    if arguments.json:
        print((REPORTS / "verdict.json").read_text(encoding="utf-8"), end="")
    elif arguments.markdown:
        print(as_markdown(result, ladder), end="")
    else:
        print(plain(ladder_table(ladder)))
        print("\n".join("  ".join([r[0].ljust(26), r[1].ljust(7), r[4]]) for r in rows_of(result)))
        for line in result["weakened"]:
            print(f"loosened: {line}")
        print(f"\n{headline(result)}")
    if not result["passed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
