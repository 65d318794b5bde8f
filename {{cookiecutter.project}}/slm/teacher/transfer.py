"""Move the teacher's paid answers from one machine to another, and give up a batch that is gone.

slm teacher export       all paid answers as one file, the same bytes for the same answers
slm teacher import       adds them to this machine's store
slm teacher forget NAME  stops waiting for a batch that is gone; it counts as paid
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files import replacing
from slm.task.strict import strict_json
from slm.teacher.store import PAID, STORE, Store


def export(store: Store, path: Path) -> int:
    count = 0
    with (
        replacing(path) as temporary,
        temporary.open("wb") as stream,
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed,
    ):
        for row in store.paid():
            packed.write((json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n").encode())
            count += 1
    return count


def read_export(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                row = strict_json(line)
                if (
                    not isinstance(row, dict)
                    or row.keys() != {"key", "value", *PAID}
                    or not isinstance(row["value"], dict)
                ):
                    raise UserError(
                        f"{path}:{number}: not an answer that `slm teacher export` wrote; export again"
                    )
                yield row
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); export it again, or `dvc pull` it") from None


def export_answers(path: Path) -> None:
    store = Store()
    print(f"{path}: {export(store, path)} answers")
    store.close()


def import_answers(path: Path) -> None:
    store = Store()
    print(f"{STORE}: {store.add(read_export(path))} new answers of {path}")
    store.close()


def give_up_batch(name: str) -> None:
    store = Store()
    print(
        f"{STORE}: {store.forget_batch(name)} requests without an answer count as paid, and will be asked "
        "again"
    )
    store.close()
