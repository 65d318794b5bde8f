"""Unpack a package from strangers within limits. Standard library only: a job that may write installs
nothing.

A model is data, but it can make a runtime load a library or a file elsewhere. So everything that does not
belong in a package is refused. `slm.verdict.inspection` then looks at each file, before any of it is loaded.
"""

import io
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from slm.errors import UserError, brief

MB = 1 << 20
# A model's files, each with the most bytes that it may have: several times those of the largest known model.
# Of protobuf, which an ONNX file is, nothing reads more than 2 GiB. Weights have the whole package's limit.
MODEL_FILES: dict[str, int | None] = {
    "model.onnx": 2048 * MB - 1, "model.onnx.data": None, "genai_config.json": MB // 16,
    "tokenizer.json": 64 * MB, "tokenizer_config.json": 8 * MB, "special_tokens_map.json": MB,
    "added_tokens.json": 4 * MB, "vocab.json": 32 * MB, "merges.txt": 32 * MB, "tokenizer.model": 32 * MB,
    "chat_template.jinja": MB // 4, "chat_template.json": MB // 2,
}  # fmt: skip
READ_AT_ONCE = MB
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def quoted(value: Any, longest: int = 80) -> str:
    """A stranger's value as a message quotes it."""
    return brief(repr(value[:longest] if isinstance(value, str) else value), longest + 20)


class _SmallReads(io.FileIO):
    """An archive. `zipfile` reads its list of entries at once: that bounds how many there may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > READ_AT_ONCE:
            raise UserError("the package has a list of entries without end; it is not unpacked")
        return super().read(size)


def unpack_candidate(archive: Path, folder: Path, limit_mb: float) -> None:
    """Unpack the model files of a zip archive into `folder`, which must not exist.

    Raises:
        UserError: a name that leads elsewhere or is no model file, a link, a method of compression that a
            workflow's artifacts do not use, too many entries, or more bytes than the limit. Nothing
            stays behind.
    """
    folder.mkdir(parents=True)
    try:
        with _SmallReads(archive) as stream, zipfile.ZipFile(stream) as zipped:
            _unpack(zipped, folder, limit_mb)
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        shutil.rmtree(folder)
        raise UserError(f"the package is not a complete archive: {quoted(str(error))}") from None
    except UserError:
        shutil.rmtree(folder)
        raise


def _unpack(zipped: zipfile.ZipFile, folder: Path, limit_mb: float) -> None:
    left = int(limit_mb * 1e6)
    for info in zipped.infolist():
        name = str(PurePosixPath(info.filename))
        if info.is_dir():
            continue
        if name not in MODEL_FILES:
            raise UserError(
                f"the package holds {quoted(info.filename)}, which is not a model file; it is not unpacked"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"the package holds {name} as a link; it is not unpacked")
        if info.compress_type not in METHODS:
            raise UserError(
                f"the package holds {name} compressed by method {info.compress_type}; it is not unpacked, "
                "store or deflate it"
            )
        with zipped.open(info) as source, (folder / name).open("xb") as target:
            # The size that an archive claims may be a lie: what counts is what comes out.
            most = MODEL_FILES[name] or left
            while block := source.read(READ_AT_ONCE):
                left, most = left - len(block), most - len(block)
                if left < 0:
                    raise UserError(
                        f"the package is larger than {limit_mb:g} MB unpacked; it is not unpacked"
                    )
                if most < 0:
                    raise UserError(f"{name} of the package is too large for a model; it is not unpacked")
                target.write(block)
