"""What the teacher has cost, by day and run, from the response store."""

from typing import Any

from slm.teacher.store import STORE, Store

HEAD = (
    "day",
    "run",
    "model",
    "answers",
    "tokens in",
    "tokens out",
    "USD",
    "seconds",
    "from the store",
    "unanswered",
)


def line(cells: tuple[Any, ...]) -> list[str]:
    day, run, model, answers, tokens_in, tokens_out, usd, seconds, hits, unanswered = cells
    money = "unknown" if usd is None else f"{usd:.4f}"
    return [
        str(day),
        str(run)[11:19],
        model,
        f"{answers:,}",
        f"{tokens_in:,}",
        f"{tokens_out:,}",
        money,
        f"{seconds:,.0f}",
        f"{hits:,}",
        f"{unanswered:,}",
    ]


def ledger_table(rows: list[tuple[Any, ...]]) -> str:
    """The ledger as text, with a last line that sums it up."""
    sums = [sum(row[i] or 0 for row in rows) for i in range(3, 10)]
    if rows and all(row[6] is None for row in rows):
        sums[3] = None
    lines = [list(HEAD), *map(line, rows), line(("all", "", "", *sums))]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in lines
    )


def print_ledger() -> None:
    if not STORE.exists():
        print(f"{STORE}: no teacher has been asked yet")
        return
    store = Store()
    print(ledger_table(store.ledger()))
    store.close()
