"""The verdict as a pull-request comment. Whatever a model, a file name or a parameter says is shown as text,
never as markup. Standard library only: the job that posts it installs nothing.
"""

import re
from typing import TypeVar

from slm.tables import markdown
from slm.verdict.judged import Changes, Figures, Judged, Shown
from slm.verdict.rows import headline, rows_of, waivers_of

LONGEST_COMMENT = 60_000  # GitHub takes 65,536 characters
# Characters that each list may take, which makes less than the whole together. What is refused, loosened or
# waived stands in the comment whatever else there is.
ROOM = {
    "judge": 12_000,
    "weakened": 12_000,
    "waived": 6_000,
    "gates": 22_000,
    "params": 8_000,
    "flips": 12_000,
}
LEFT_OUT = "What is left out here stands in `verdict.json` of the judge's run.\n"
MOST_IDS = 30
_Row = TypeVar("_Row", str, list[str])


def inert(text: str, longest: int = 200) -> str:
    """Any text as code that renders as itself: no markup, no mention, no reference, no end of the code.

    GitHub looks for addresses before it knows of the code: so each of their marks (`@`, `:`, `www.`) stands
    apart, behind a comment that is not shown.
    """
    flat = re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in str(text)))
    flat = flat if len(flat) <= longest else flat[:longest] + "…"
    safe = re.sub(r"[^\w ,…\u00a0-\U0010ffff-]|_", lambda c: f"&#{ord(c[0])};", flat)
    apart = re.sub(r"(?i)(?:&#(?:64|58);)|(?<=w)&#46;", lambda c: f"<!-- -->{c[0]}", safe)
    return f"<code>{apart}</code>"


def status_text(judged: Judged) -> str:
    """One line: whether the model passes."""
    first = "This change does not touch the model." if _untouched(judged) else headline(judged.verdict)
    return f"{'✅' if judged.verdict.passed else '❌'} {first}"


def comment(judged: Judged) -> str:
    """Markdown: verdict, what was measured, gates, what changed, wins and losses."""
    result, changes, shown = judged.verdict, judged.changes, judged.shown
    # Names of gates are the default branch's; no name may be markup all the same.
    title = re.sub(r"[^\w ,:;()%✅❌-]|_", "·", status_text(judged).rstrip("."))
    parts = [f"## {title}.\n"]
    if changes and changes.judge:
        lines = [inert(line) for line in changes.judge]  # the most dangerous first
        parts.append(
            "> [!WARNING]\n> **This pull request changes what models are judged by.** The verdict was made "
            "without these changes, by the default branch's files:\n" + _list(lines, ROOM["judge"], "> - ")
        )
    for title, name, said in (
        ("The contract is loosened", "weakened", [inert(line, 400) for line in result.weakened]),
        ("Waived", "waived", [inert(line, 400) for line in waivers_of(result)]),
    ):
        if said:
            parts.append(f"### {title}\n\n{_list(said, ROOM[name], '- ')}")
    if shown:
        parts.append(_table(shown, result.sandbox))
    if not _untouched(judged):
        parts.append(_gates(judged))
    if not result.passed:
        parts.append(
            "On your machine: `slm repro && slm judge`, then `slm gate --explain NAME`. `gates.yaml` says "
            "what each gate is for.\n"
        )
    further = [_picture(shown), *_answers(shown)] if shown else []
    further.append(_params(changes) if changes else "")
    return _within(parts, [part for part in further if part])


def _within(parts: list[str], further: list[str]) -> str:
    """All parts, and of the further ones those for which there is room; it says so if one is left out."""
    text, left_out = "\n".join(parts), False
    for part in further:
        if len(text) + len(part) + len(LEFT_OUT) < LONGEST_COMMENT:
            text += f"\n{part}"
        else:
            left_out = True
    return f"{text}\n{LEFT_OUT}" if left_out else text


def _untouched(judged: Judged) -> bool:
    return judged.changes is not None and not judged.changes.model


def fitting(rows: list[_Row], room: int) -> tuple[list[_Row], str]:
    """As many of the rows (texts, or cells of a table) as have room; and how many more there are."""
    kept: list[_Row] = []
    for row in rows:
        room -= len("".join(row))
        if room < 0 and kept:
            break
        kept.append(row)
    return kept, f"and {len(rows) - len(kept)} more" if len(kept) < len(rows) else ""


def _list(lines: list[str], room: int, start: str) -> str:
    kept, more = fitting(lines, room)
    return "".join(f"{start}{line}\n" for line in [*kept, *([more] if more else [])])


def _cells(head: list[str], cells: list[list[str]], room: int) -> str:
    kept, more = fitting(cells, room)
    return markdown([head, *kept]) + (f"\n{more}\n" if more else "")


def _gates(judged: Judged) -> str:
    """The table of gates; those that refuse stand first."""
    head, *texts = rows_of(judged.verdict)
    cells = []
    for gate, (name, mark, *ends, why) in zip(judged.verdict.gates, texts, strict=True):
        values = [
            inert(text, 40) if isinstance(end, str) else text
            for end, text in zip((gate.value, gate.limit), ends, strict=True)
        ]
        cells.append((not gate.refuses, [inert(name, 80), mark, *values, inert(why, 800)]))
    ordered = [row for _, row in sorted(cells, key=lambda pair: pair[0])]
    return f"### Gates\n\n{_cells(head, ordered, ROOM['gates'])}"


def _params(changes: Changes) -> str:
    if not changes.params:
        return ""
    cells = [[inert(c) for c in row] for row in changes.params]
    return f"### Parameters\n\n{_cells(['parameter', 'before', 'after'], cells, ROOM['params'])}"


def _table(shown: Shown, sandbox: str | None) -> str:
    rows = [["", "score", "95%", "n", "valid", "ms", "RSS MB", "weights MB"]]
    for name, of in (("released", shown.released), ("candidate", shown.candidate)):
        if of is None:
            continue
        figures = ["–" if f is None else f"{f:.1f}" for f in (of.request_ms_p50, of.rss_mb, of.weights_mb)]
        interval = f"{of.score_low:.3f}–{of.score_high:.3f}"
        rows.append([name, f"{of.score:.3f}", interval, str(of.n), f"{of.valid_rate:.3f}", *figures])
    where = f" The model ran in the sandbox {inert(sandbox)}." if sandbox else ""
    return (
        f"Asked and measured here, side by side, on {inert(shown.processor)}, one thread.{where}\n\n"
        f"{markdown(rows)}"
    )


def _picture(shown: Shown) -> str:
    """The steps from the released model to the candidate as a Mermaid chart: shares of the released model's
    figures.
    """
    after, before = shown.candidate, shown.released
    if not before or not before.score or before.request_ms_p50 is None:
        return ""
    shares = {"score": after.score / before.score}
    for name, key in (("time", "request_ms_p50"), ("memory", "rss_mb"), ("weights", "weights_mb")):
        one, other = _figure(after, key), _figure(before, key)
        if one is not None and other:
            shares[name] = one / other
    top = max(1.2, *shares.values())
    bars, axis = ", ".join(f"{100 * v:.1f}" for v in shares.values()), ", ".join(shares)
    return (
        '```mermaid\nxychart-beta\n  title "Candidate, as a share of the released model (%)"\n'
        f'  x-axis [{axis}]\n  y-axis "%" 0 --> {100 * top:.0f}\n'
        f"  bar [{bars}]\n  line [{', '.join(['100'] * len(shares))}]\n```\n"
    )


def _figure(figures: Figures, key: str) -> float | None:
    return getattr(figures, key)


def _answers(shown: Shown) -> list[str]:
    """Wins and losses against the released model: numbers and ids on the test set, whose texts stand in no
    comment; texts from the validation data.
    """
    if not shown.released:
        return []
    lines = []
    for name, ids in (("lost", shown.lost), ("won", shown.won)):
        said = ", ".join(inert(i, 60) for i in ids[:MOST_IDS])
        more = f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else ""
        lines.append(f"- {len(ids)} answers {name}{': ' if ids else ''}{said}{more}\n")
    parts = ["### Test set, against the released model\n\n" + "".join(lines)]
    for name, sign in (("lost", -1), ("won", 1)):
        flips = [f for f in shown.flips if f.change * sign > 0]
        cells = [[inert(t) for t in (f.prompt, f.expected, f.before, f.answer)] for f in flips]
        if cells:
            title = f"Validation data: {len(cells)} of {shown.sample} answers {name}"
            table = _cells(["request", "expected", "released", "candidate"], cells, ROOM["flips"] // 2)
            parts.append(f"<details><summary>{title}</summary>\n\n{table}\n</details>\n")
    return parts
