"""What a person acts on, for one gate of the verdict: `slm gate --explain NAME`.

The row; its evidence (examples, slices or figures, whichever the gate is about); what changed since the
released model; and the command that makes the figure again.
"""

import json
import subprocess
from typing import Any

from slm.config.params import load_params
from slm.dvc_cli import DVC
from slm.errors import UserError, brief
from slm.evaluation.cost import ratio_spread
from slm.files import read_json, read_jsonl
from slm.git import differing, file_at, git
from slm.task.definition import Task, load_task
from slm.task.metrics import interval, score_one
from slm.task.records import Prediction
from slm.verdict.baseline import flips, scores_by_slice
from slm.verdict.changes import parameters_diff
from slm.verdict.contract import Contract, Gate, load_contract
from slm.verdict.facts import PREDICTIONS, REPORTS
from slm.verdict.registry import (
    COST,
    NO_SLICE_WORSE,
    NOT_WORSE,
    QUALITY_FIGURES,
    ROUNDS_AGREE,
    WITHIN_MARGIN,
    command_again,
)
from slm.verdict.released import RELEASED, predictions_of
from slm.verdict.rows import Row, Verdict

SHOWN_EXAMPLES = 20
# What is in git, as a person thinks of it; parameters and recipes are told value by value.
KINDS = {
    "data": ("task",),
    "code": ("slm", "pipeline", "dvc.yaml", "Makefile"),
    "packages": ("requirements",),
    "contract": ("gates.yaml", "waivers.yaml", "contracts"),
}


def explain_gate(name: str, verdict: Verdict) -> str:
    """Everything about one gate of a verdict, as text."""
    rows = {row.name: row for row in verdict.gates}
    if name not in rows:
        elsewhere = name in {gate.name for gate in COST.values()}
        beside = (
            "; `slm judge` judges time, memory and weights beside the released model" if elsewhere else ""
        )
        raise UserError(f"this verdict has no gate {name!r}{beside}; there are: {', '.join(rows)}")
    contract, task, shipped = load_contract(), load_task(), load_params().package.variant
    gate = next((g for g in contract.gates if g.name == name), None)
    parts = [the_row(rows[name]), *evidence_of_gate(name, gate, contract, task, shipped)]
    if verdict.baseline:
        parts.append(changed_since(verdict.baseline["revision"], verdict.baseline["tag"]))
    else:
        parts.append(
            "What changed: nothing is released yet, so there is nothing to compare this checkout with."
        )
    metrics = [metric for metric in (gate.metric, gate.over) if metric] if gate else []
    return "\n\n".join([*parts, f"Again: {command_again(name, metrics, shipped)}"]) + "\n"


def the_row(row: Row) -> str:
    ends = f"  value {row.value}, limit {row.limit}\n  {row.why}"
    waived = f"\n  {row.waiver}" if row.waived else ""
    return f"{row.name}: {row.mark} (severity {row.severity})\n{ends}{waived}"


def evidence_of_gate(name: str, gate: Gate | None, contract: Contract, task: Task, shipped: str) -> list[str]:
    """What this gate is about, in as many paragraphs as it needs."""
    mine = answers_of(shipped)
    released = read_json(RELEASED)
    compared = {gate.name: which for gates in (NOT_WORSE, WITHIN_MARGIN) for which, gate in gates.items()}
    if name in compared:
        which = compared[name]
        entry = released.get(which)
        return (
            [examples(task, f"{which} ({entry['tag']})", predictions_of(entry), shipped, mine)]
            if entry
            else [worst(task, mine)]
        )
    if name == NO_SLICE_WORSE.name:
        return [slices_against(contract, task, mine, predictions_of(released.get("released")))]
    if name == ROUNDS_AGREE.name:
        ratios = read_json(REPORTS / "cost.json").get("ratios") or {}
        lines = [
            f"  {model}: {', '.join(f'{r:.3g}' for r in rounds)} (factor {ratio_spread(rounds):.2f})"
            for model, rounds in ratios.items()
        ]
        return ["\n".join(["Time as a share of the first model's, round by round", *lines])]
    if gate is None:
        return []
    (rung, figure), over = gate.metric.split("."), gate.over.split(".") if gate.over else None
    rung = shipped if rung == "shipped" else rung
    parts = []
    if over:
        over[0] = shipped if over[0] == "shipped" else over[0]
        parts.append(both_figures((rung, figure), (over[0], over[1])))
    if rung == "data" and figure == "doubtful_labels":
        parts.append(doubtful_labels_section())
    if figure in QUALITY_FIGURES:
        answers = answers_of(rung)
        if over and over[1] in QUALITY_FIGURES:
            before: list[dict[str, Any]] | None = answers_of(over[0])
            label = over[0]
        else:
            entry = released.get("released") if rung == shipped else None
            before, label = predictions_of(entry), f"released ({entry['tag']})" if entry else ""
        which = "valid" if figure == "valid_rate" else "score"
        parts.append(examples(task, label, before, rung, answers, which) if before else worst(task, answers))
    return parts


def answers_of(rung: str) -> list[Prediction]:
    path = PREDICTIONS / f"{rung}.jsonl"
    return read_jsonl(path)[1:] if path.exists() else []


def example(r: Prediction, **said: str) -> str:
    lines = {"request": r["prompt"], "expected": r["expected"], **said}
    return f"  {brief(r['id'], 60)}\n" + "\n".join(f"    {k:9s} {brief(v, 300)}" for k, v in lines.items())


def examples(
    task: Task,
    one: str,
    before: list[Prediction] | None,
    other: str,
    after: list[Prediction],
    figure: str = "score",
) -> str:
    """The answers whose score (or validity) changed from one model to the other, losses first."""
    found = flips(task, before or [], after, figure)
    lost = sum(r["change"] < 0 for r in found)
    what = "validity" if figure == "valid" else "score"
    counts = f"{lost} lost, {len(found) - lost} won; {min(SHOWN_EXAMPLES, len(found))} shown, losses first"
    head = f"Answers whose {what} changes from {one} (before) to {other} (after): {counts}"
    return "\n".join(
        [head, *(example(r, before=r["before"], after=r["answer"]) for r in found[:SHOWN_EXAMPLES])]
    )


def worst(task: Task, answers: list[Prediction]) -> str:
    """Without a model to compare with: the worst answers, those that cannot be read first."""
    scored = [(score_one(task, r["expected"], r["answer"]), r) for r in answers]
    wrong = sorted(((s["valid"], s["score"], i) for i, (s, _) in enumerate(scored) if s["score"] < 1))
    head = (
        f"No released model to compare with. Wrong answers: {len(wrong)} of {len(answers)}; "
        f"{min(SHOWN_EXAMPLES, len(wrong))} shown, invalid ones first"
    )
    return "\n".join(
        [head, *(example(answers[i], answer=answers[i]["answer"]) for _, _, i in wrong[:SHOWN_EXAMPLES])]
    )


def slices_against(
    contract: Contract, task: Task, after: list[Prediction], before: list[Prediction] | None
) -> str:
    """Every slice that is large enough, most net losses first; without a baseline, by its score."""
    smallest = contract.released.slice_size
    if before is None:
        groups = {n: s for n, (s, _) in scores_by_slice(task, after, after).items() if len(s) >= smallest}
        lines = []
        for name, scores in sorted(groups.items(), key=lambda item: sum(item[1]) / len(item[1])):
            low, high = interval(scores)
            lines.append(
                f"  {brief(name, 60)}: score {sum(scores) / len(scores):.3f} ({low:.3f} to {high:.3f}) on "
                f"{len(scores)}"
            )
        return "\n".join(
            [
                f"No released model to compare with. Slices of at least {smallest} examples, the worst first",
                *lines,
            ]
        )
    rows = []
    for name, (old, new) in scores_by_slice(task, after, before).items():
        lost, won = (sum(sign * (a - b) > 0 for b, a in zip(old, new, strict=True)) for sign in (-1, 1))
        rows.append((lost - won, name, lost, won, len(old)))
    large = sorted((r for r in rows if r[4] >= smallest), reverse=True)
    head = (
        f"Slices of at least {smallest} examples, most lost first ({len(rows) - len(large)} smaller ones "
        "prove nothing)"
    )
    return "\n".join(
        [head, *(f"  {brief(name, 60)}: {lost} lost, {won} won of {n}" for _, name, lost, won, n in large)]
    )


def doubtful_labels_section() -> str:
    """Labels that a classifier which has not seen them finds unlikely."""
    found = read_json(REPORTS / "data.json")["doubtful"]
    lines = [
        f"  {brief(r['file'], 60)}:{r['line']}: {brief(r['text'], 120)}\n    label "
        f"{brief(r['answer'], 120)}; likelier {brief(r['likelier'], 60)}"
        for r in found["shown"][:SHOWN_EXAMPLES]
    ]
    head = (
        f"Labels to look at: {found['found']} of {found['looked_at']}; {len(lines)} shown, the least likely "
        "first"
    )
    return "\n".join([head, *lines])


def both_figures(*which: tuple[str, str]) -> str:
    """The figures of a ratio; a time with its rounds, which say how noisy the machine was."""
    figures = {r["name"]: r for r in read_json(REPORTS / "ladder.json")["rungs"]}
    cost = read_json(REPORTS / "cost.json")
    lines = []
    for rung, figure in (w for w in which if w[0] in figures):
        value = figures.get(rung, {}).get(figure)
        rounds = (
            cost["rungs"]
            .get(rung, {})
            .get("by_threads", {})
            .get(str(cost["threads"]), {})
            .get(f"{figure}_by_round")
        )
        by_round = f" (by round: {', '.join(f'{r:.4g}' for r in rounds)})" if rounds else ""
        lines.append(f"  {rung}.{figure} = {value if value is None else format(value, '.5g')}{by_round}")
    return "\n".join(["Both figures, from reports/ladder.json", *lines])


def changed_since(revision: str, tag: str) -> str:
    """What differs between the released model's commit and this checkout: parameters by value, files by name,
    DVC's outputs.
    """
    if file_at(revision, "dvc.yaml") is None:
        return (
            f"What changed: this clone lacks {revision[:12]}, the commit of {tag}; run `git fetch "
            "--unshallow --tags`."
        )
    lines = [
        f"  {brief(name, 80)}: {brief(before, 80)} -> {brief(after, 80)}"
        for name, before, after in parameters_diff(revision, None)
    ]
    numbers = {}
    for line in git("diff", "--numstat", "--no-renames", "--relative", "-z", revision, "--").split("\0"):
        if line:
            added, removed, path = line.split("\t", 2)
            numbers[path] = f"+{added} -{removed} lines"
    for kind, paths in KINDS.items():
        lines += [
            f"  {kind}: {brief(path, 120)} ({numbers.get(path, 'changed')})"
            for path in differing(revision, None, *paths)
        ]
    made = outputs_since(revision)
    lines += [f"  made anew by the pipeline: {', '.join(made)}"] if made else []
    return "\n".join([f"What changed since {tag} ({revision[:12]})", *(lines or ["  nothing"])])


def outputs_since(revision: str) -> list[str]:
    """Models and data that are here with other bytes than that commit's lock names, by DVC's own comparison;
    the rest follows from them.
    """
    command = [*DVC, "diff", "--json", revision]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        return [f"unknown: dvc diff says {brief(done.stderr, 200)}"]
    found: dict[str, Any] = json.loads(done.stdout or "{}")
    paths = [row["path"].rstrip("/") for kind in ("modified", "added") for row in found.get(kind, [])]
    return sorted(brief(p, 80) for p in paths if p.startswith(("models/", "data/")) and p.count("/") == 1)
