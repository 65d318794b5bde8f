"""Move the teacher's paid answers from one machine to another, and give up a batch that is gone.

slm teacher export       all paid answers as one file, the same bytes for the same answers
slm teacher import       adds them to this machine's store
slm teacher forget NAME  stops waiting for a batch that is gone; it counts as paid
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slm.errors import UserError
from slm.files import replacing
from slm.task.strict import Unreadable, strict_json
from slm.teacher.response import Count
from slm.teacher.store import STORE, Store


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


Measured = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ExportedReply(BaseModel):
    """What is relied on of a stored answer, whose other keys depend on the endpoint."""

    model_config = ConfigDict(extra="allow", strict=True)

    text: str
    cut: bool
    model: str
    finish_reason: str | None = None


class ExportedRow(BaseModel):
    """A line of an export."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str = Field(min_length=1)
    value: ExportedReply
    time: str | None
    run: str | None
    model: str
    tokens_in: Count | None
    tokens_out: Count | None
    usd: Measured | None
    seconds: Measured | None


def read_export(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an export.

    Raises:
        UserError: names the file and, where one is wrong, its line.
    """
    try:
        if path.stat().st_size == 0:
            raise EOFError("it is empty")
        with gzip.open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                yield _row(line, f"{path}:{number}")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); export it again, or `dvc pull` it") from None


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = strict_json(line.decode())
        ExportedRow.model_validate(row)
    except UnicodeDecodeError:
        why = "not UTF-8"
    except Unreadable as fault:
        why = fault.what
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))} {first['msg']}"
    else:
        return row
    raise UserError(f"{where}: not an answer that `slm teacher export` wrote ({why[:200]}); export again")


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
