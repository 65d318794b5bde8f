"""The teacher's paid answers from one machine to another, and what becomes of a batch that is gone.

python -m slm.teacher.transfer export answers/teacher.jsonl.gz     all paid answers as one file, the same bytes for the same answers
python -m slm.teacher.transfer import answers/teacher.jsonl.gz     adds them to this machine's store
python -m slm.teacher.transfer forget batch_123                    waits no longer for a batch that is gone; it counts as paid
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm.errors import UserError, stage
from slm.files import replacing
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
                row = json.loads(line)
                if (
                    not isinstance(row, dict)
                    or row.keys() != {"key", "value", *PAID}
                    or not isinstance(row["value"], dict)
                ):
                    raise UserError(
                        f"{path}:{number}: no answer as `python -m slm.teacher.transfer export` writes them; export again"
                    )
                yield row
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); export it again, or `dvc pull` it") from None


@stage
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Take the teacher's paid answers from one machine to another; give a batch up."
    )
    parser.add_argument("what", choices=("export", "import", "forget"))
    parser.add_argument("path", type=Path, help="the file, or the name of the batch")
    arguments = parser.parse_args()
    store = Store()
    if arguments.what == "export":
        print(f"{arguments.path}: {export(store, arguments.path)} answers")
    elif arguments.what == "forget":
        print(
            f"{STORE}: {store.forget_batch(str(arguments.path))} requests without an answer count as paid, and will be asked again"
        )
    else:
        print(f"{STORE}: {store.add(read_export(arguments.path))} new answers of {arguments.path}")
    store.close()


if __name__ == "__main__":
    main()
