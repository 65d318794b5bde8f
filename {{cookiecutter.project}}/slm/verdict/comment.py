"""The verdict as a pull-request comment. Whatever a model, a file name or a parameter says is shown as text,
never as markup.
"""

import re
from typing import Any

from slm.tables import markdown
from slm.task.definition import Task
from slm.task.records import Prediction
from slm.verdict.baseline import flips
from slm.verdict.rows import Verdict, headline, rows_of, waivers_of

LONGEST_COMMENT = 60_000  # GitHub takes 65,536 characters
Shown = dict[
    str, Any
]  # what is shown beside a verdict: predictions, quality and cost of both models, the machine


def inert(text: str, longest: int = 200) -> str:
    """Any text as code that renders as itself: no markup, no mention, no reference, no end of the code."""
    flat = re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in str(text)))
    flat = flat if len(flat) <= longest else flat[:longest] + "…"
    safe = re.sub(r"[^\w ,…\u00a0-\U0010ffff-]|_", lambda c: f"&#{ord(c[0])};", flat)
    return f"<code>{safe}</code>"


def comment(task: Task, result: Verdict, changes: dict[str, Any] | None, shown: Shown) -> str:
    """Markdown: verdict, what was measured, gates, what changed, wins and losses."""
    untouched = changes is not None and not changes["model"]
    first = "This change does not touch the model." if untouched else headline(result)
    parts = [f"## {'✅' if result.passed else '❌'} {first}\n"]
    if changes and changes["judge"]:
        lines = "\n".join(f"> - {inert(line)}" for line in changes["judge"][:30])
        parts.append(
            "> [!WARNING]\n> **This pull request changes what models are judged by.** The verdict was made "
            "without these changes, by the "
            f"default branch's files:\n{lines}\n"
        )
    if result.weakened:
        parts.append(
            "### The contract is loosened\n\n"
            + "\n".join(f"- {inert(line)}" for line in result.weakened)
            + "\n"
        )
    waived = waivers_of(result)
    if waived:
        parts.append("### Waived\n\n" + "\n".join(f"- {inert(line, 400)}" for line in waived) + "\n")
    if shown:
        parts += [_table(shown), _picture(shown)]
    if not untouched:
        rows = rows_of(result)
        parts.append(
            "### Gates\n\n"
            + markdown([rows[0], *([r[0], r[1], r[2], r[3], inert(r[4], 800)] for r in rows[1:])])
        )
    if changes and changes["params"]:
        table = [
            ["parameter", "before", "after"],
            *([inert(c) for c in row] for row in changes["params"][:40]),
        ]
        parts.append("### Parameters\n\n" + markdown(table))
    if shown and shown["released"]:
        parts.append(_flips(task, shown["predictions"], shown["released"]))
    if not result.passed:
        parts.append(
            "On your machine: `slm repro && slm judge`, then `slm gate --explain NAME`. `gates.yaml` says "
            "what each gate is for.\n"
        )
    text = "\n".join(parts)
    return text if len(text) < LONGEST_COMMENT else text[:LONGEST_COMMENT] + "\n\n…\n"


def _table(shown: Shown) -> str:
    rows = [["", "score", "95%", "n", "valid", "ms", "RSS MB", "weights MB"]]
    for name, quality in (("released", shown["released_quality"]), ("candidate", shown["quality"])):
        if quality is None:
            continue
        cost = shown["cost"].get(name) or {}
        figures = [f"{cost[k]:.1f}" if k in cost else "–" for k in ("request_ms_p50", "rss_mb", "weights_mb")]
        rows.append(
            [
                name,
                f"{quality['score']:.3f}",
                f"{quality['score_low']:.3f}–{quality['score_high']:.3f}",
                str(quality["n"]),
                f"{quality['valid_rate']:.3f}",
                *figures,
            ]
        )
    where = shown["machine"]
    return (
        f"Asked and measured here, side by side, on {inert(where['processor'])}, one "
        f"thread:\n\n{markdown(rows)}"
    )


def _picture(shown: Shown) -> str:
    """The steps from the released model to the candidate as a Mermaid chart: shares of the released model's
    figures.
    """
    cost, before = shown["cost"], shown["released_quality"]
    if not before or "released" not in cost or not before["score"]:
        return ""
    names = {"score": shown["quality"]["score"] / before["score"]}
    names |= {
        name: cost["candidate"][key] / cost["released"][key]
        for name, key in (("time", "request_ms_p50"), ("memory", "rss_mb"), ("weights", "weights_mb"))
        if cost["released"][key]
    }
    top = max(1.2, *names.values())
    bars, axis = ", ".join(f"{100 * v:.1f}" for v in names.values()), ", ".join(names)
    return (
        '```mermaid\nxychart-beta\n  title "Candidate, as a share of the released model (%)"\n'
        f'  x-axis [{axis}]\n  y-axis "%" 0 --> {100 * top:.0f}\n'
        f"  bar [{bars}]\n  line [{', '.join(['100'] * len(names))}]\n```\n"
    )


def _flips(task: Task, after: list[Prediction], before: list[Prediction]) -> str:
    """Wins and losses against the released model, a few of each, folded."""
    sides: dict[str, list[list[str]]] = {"lost": [], "won": []}
    for r in flips(task, before, after):
        sides["won" if r["change"] > 0 else "lost"].append(
            [inert(r[k]) for k in ("prompt", "expected", "before", "answer")]
        )
    text = ""
    for name, rows in sides.items():
        table = markdown([["request", "expected", "released", "candidate"], *rows[:15]])
        text += (
            f"<details><summary>{len(rows)} answers {name}</summary>\n\n{table}\n</details>\n\n"
            if rows
            else ""
        )
    return text
