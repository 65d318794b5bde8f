"""Files that are never half written, and hashes of what is on disk."""

import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slm.errors import UserError

# What a killed stage goes on from; outside the stages' outputs, which DVC deletes before a stage runs.
RESUME = Path(".resume")
Json = dict[str, Any]  # an object, as it is read

LARGEST_ENTRIES = 10_000  # of an archive
WEIGHT_SUFFIXES = {".safetensors", ".onnx", ".data", ".bin", ".gguf"}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` only if the block succeeds.

    Works for a file or a folder: whoever kills us leaves either the old thing or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[Any]:
    """Rows of a JSON-lines file that this pipeline wrote itself; people's files go through
    `slm.task.records`.
    """
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sha256_of(folder: Path, paths: list[Path]) -> str:
    lines = [f"{sha256_file(p)}  {p.relative_to(folder).as_posix()}\n" for p in sorted(paths)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix in WEIGHT_SUFFIXES]


def weights_sha256(folder: Path) -> str:
    """Hash over the sorted weight files of a model folder."""
    return _sha256_of(folder, weight_files(folder))


def folder_sha256(folder: Path) -> str:
    """Hash over every file of a folder: all that a runtime loads."""
    return _sha256_of(folder, [p for p in folder.rglob("*") if p.is_file()])


def weights_mb(folder: Path) -> float:
    """Size of the weight files, in 10^6 bytes."""
    return sum(p.stat().st_size for p in weight_files(folder)) / 1e6


def folder_mb(folder: Path) -> float:
    """Size of all files of a folder, in 10^6 bytes."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def source_files(path: Path) -> list[Path]:
    """A file, or all files below a folder but compiled code."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def dvc_md5(folder: Path) -> str:
    """The hash by which dvc.lock names a folder: that of the sorted list of its files' hashes."""
    rows = [
        {
            "md5": hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest(),
            "relpath": p.relative_to(folder).as_posix(),
        }
        for p in folder.rglob("*")
        if p.is_file()
    ]
    listing = json.dumps(sorted(rows, key=lambda r: r["relpath"]))
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def unpack(archive: Path, folder: Path, limit_mb: float) -> None:
    """Unpack a tar archive of files and folders; links, devices, names that lead out of `folder` and more
    bytes than the limit are refused before anything is written.

    Raises:
        UserError: names the archive and the entry.
    """
    try:
        with tarfile.open(archive) as tar:
            members: list[tarfile.TarInfo] = []
            size = 0
            for member in tar:
                size += member.size
                if not (member.isfile() or member.isdir()):
                    raise UserError(f"{archive} holds {member.name[:80]!r}, which is neither file nor folder")
                if size > limit_mb * 1e6 or len(members) >= LARGEST_ENTRIES:
                    raise UserError(f"{archive} holds more than {limit_mb:g} MB or {LARGEST_ENTRIES} entries")
                members.append(member)
            tar.extractall(folder, members=members, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{archive} cannot be unpacked: {str(error)[:200]}; download it again") from None
