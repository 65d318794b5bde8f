"""The verdict: one comparison of facts with the contract. It measures nothing and decides everything.

A failed gate that waivers.yaml names is shown as waived and refuses nothing. A waiver counts once it is on
the default branch, so that no pull request waives its own gates: see `waivers_in_force`. In pr.yml this code
is the pull request's own, so a verdict there can block but cannot be trusted to pass. The judge, in the
default branch's checkout, has the last word.
"""

from dataclasses import replace
from typing import Literal

from slm.evaluation.ladder import ladder_table
from slm.files import read_json, write_json, write_text
from slm.tables import plain
from slm.verdict.baseline import blame, judge_baseline
from slm.verdict.cost import how_sure, judge_rounds
from slm.verdict.data_figures import data_figures
from slm.verdict.explain import explain_gate
from slm.verdict.facts import REPORTS, Facts, collect_facts
from slm.verdict.integrity import judge_claims, judge_integrity, with_true_labels
from slm.verdict.limits import judge_metric
from slm.verdict.policy import judge_data, judge_licences
from slm.verdict.rows import Row, Verdict, as_markdown, headline, rows_of
from slm.verdict.waivers import waive


def judge(facts: Facts) -> Verdict:
    """The verdict on what was collected; it reads nothing else."""
    contract, task = facts.contract, facts.task
    candidate = with_true_labels(facts.predictions[facts.shipped][1:], facts.records)
    rows = [
        *judge_integrity(facts),
        judge_rounds(facts.cost),
        *judge_licences(contract, facts.licences, task.license),
        *judge_data(contract, facts.data),
        *judge_claims(facts),
        *judge_limits(facts),
        *judge_baseline(contract, task, candidate, facts.baselines),
    ]
    rows = waive(blame(rows, facts.changed), facts.waivers, facts.today)
    package = facts.package
    hashes = {"weights_sha256": package.weights_sha256, "folder_sha256": package.folder_sha256}
    revision = {"revision": facts.revision}
    return Verdict(rows, revision | hashes, facts.released, facts.weakened, facts.contract_sha256)


def judge_limits(facts: Facts) -> list[Row]:
    """The gates of the contract: each figure of the ladder, the data and the package against its limit."""
    made_from = (
        data_figures(facts.task, facts.data, facts.synthetic, facts.released_train) if facts.data else {}
    )
    beside = [{"name": "data", **made_from}, {"name": "package", "mb": facts.package.mb}]
    figures = {"rungs": [*facts.ladder["rungs"], *beside]}
    absent, rows = reasons_for_absence(facts, made_from), []
    for gate in facts.contract.gates:
        row = judge_metric(gate, figures, facts.shipped, absent)
        rows.append(replace(row, why=row.why + how_sure(gate, facts.cost, facts.shipped)))
    return rows


def reasons_for_absence(facts: Facts, made_from: dict[str, float]) -> dict[str, str]:
    """Figures, or all of a rung's, that are lacking by nature, with the reason: a gate over one of them does
    not apply.
    """
    absent, data = {}, facts.data
    if facts.endpoint_teacher:
        absent["teacher"] = "the teacher is an endpoint, without time, memory and weights of its own here"
    if "drift" not in made_from:
        lacks = "train.jsonl of the released commit is not in this clone"
        absent["data.drift"] = lacks if facts.released else "nothing is released yet"
    if data and not data.get("doubtful", {"looked_at": 1})["looked_at"]:
        absent["data.doubtful_labels"] = "no class of an answer has enough examples to tell"
    if data and not any(data["splits"]["train"]["classes"]):
        why = "the answers of this task have no classes"
        absent |= dict.fromkeys(("data.largest_class", "data.fewest_examples"), why)
    return absent


def run_gate(form: Literal["table", "json", "markdown"] = "table") -> bool:
    """Judge, write reports/verdict.json and verdict.md, print the verdict; whether the model passed."""
    result = judge(collect_facts())
    ladder = read_json(REPORTS / "ladder.json")
    write_json(REPORTS / "verdict.json", result.to_json())
    write_text(REPORTS / "verdict.md", as_markdown(result, ladder))
    if form == "json":
        print((REPORTS / "verdict.json").read_text(encoding="utf-8"), end="")
    elif form == "markdown":
        print(as_markdown(result, ladder), end="")
    else:
        print(plain(ladder_table(ladder)))
        print("\n".join("  ".join([r[0].ljust(26), r[1].ljust(7), r[4]]) for r in rows_of(result)))
        for line in result.weakened:
            print(f"loosened: {line}")
        print(f"\n{headline(result)}")
    return result.passed


def explain_verdict(name: str) -> None:
    """Judge, and print what one gate rests on; no file is written."""
    print(explain_gate(name, judge(collect_facts())), end="")
