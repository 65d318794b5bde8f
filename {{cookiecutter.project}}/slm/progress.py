"""A progress bar with time left, that also reads well in a log file and inside `dvc repro`."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    interactive = sys.stderr.isatty()
    yield from tqdm(
        items, desc=what, total=total, unit="", dynamic_ncols=interactive, mininterval=0.5 if interactive else 10, file=sys.stderr
    )
