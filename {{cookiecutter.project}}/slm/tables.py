"""A table of text, as Markdown and as plain text."""

import re

# A figure as a cell shows it: 0.731, 95%, 0.700–0.759, 12 MB, or none.
FIGURE = re.compile(r"–|[-+]?[\d.,]+( ?(%|ms|MB|s))?(–[\d.,]+)?")


def markdown(rows: list[list[str]]) -> str:
    """A Markdown table, the header first. Columns of figures stand on the right, texts on the left."""
    columns = list(zip(*rows[1:], strict=True))
    figures = [bool(column) and all(FIGURE.fullmatch(cell) for cell in column) for column in columns]
    ends = [" ---: " if right else " --- " for right in figures or [False] * len(rows[0])]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, f"|{'|'.join(ends)}|")
    return "\n".join(lines) + "\n"


def plain(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(lines) + "\n"
