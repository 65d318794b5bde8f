"""A progress bar with time left, that also reads well in a log file and inside `dvc repro`."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def bar(what: str, total: int | None = None, items: Iterable[Any] | None = None) -> tqdm:
    interactive = sys.stderr.isatty()
    return tqdm(
        items,
        desc=what,
        total=total,
        unit="",
        dynamic_ncols=interactive,
        mininterval=0.5 if interactive else 10,
        file=sys.stderr,
    )


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    yield from bar(what, total, items)


def print_closing_line(stage: str, facts: dict[str, Any]) -> None:
    """The last line of a stage's output: one JSON document of its facts."""
    print(json.dumps({"stage": stage, **facts}))
