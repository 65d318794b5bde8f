"""Look at a package from strangers before any of it is loaded: its files, their sizes, what is in them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm.errors import UserError, brief
from slm.inference.sandbox import RUN_MODULE, SLM, Child, Kind, limits_for
from slm.verdict.genai_config import check_genai_config
from slm.verdict.untrusted import MODEL_FILES, quoted

DEEPEST = 32  # objects and lists in one another; a tokenizer has up to ten
NEEDED_FILES = ("model.onnx", "genai_config.json", "tokenizer.json", "tokenizer_config.json")


def inspect(folder: Path, sandbox: Kind) -> None:
    """Refuse a model folder that could do more than compute.

    Args:
        sandbox: in which the ONNX file is read.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file() or name not in MODEL_FILES:
            raise UserError(f"{quoted(name)} is not a model file")
        most = MODEL_FILES[name]
        if most is not None and path.stat().st_size > most:
            raise UserError(f"{name} has {path.stat().st_size} bytes; a package may have {most} there")
    for name in NEEDED_FILES:
        if not (folder / name).is_file():
            raise UserError(f"{name} is missing: this is not a package")
    for path in sorted(folder.glob("*.json")):
        value = _json(path)
        if path.name == "genai_config.json":
            check_genai_config(value)
    for name in ("chat_template.jinja", "merges.txt"):
        if (folder / name).is_file():
            _text(folder / name)
    _inspect_onnx(folder, sandbox)


def _inspect_onnx(folder: Path, sandbox: Kind) -> None:
    arguments = ["-c", RUN_MODULE, str(SLM.parent), "slm.verdict.onnx_file", str(folder.resolve())]
    try:
        with Child(arguments, limits_for(folder), [folder], sandbox) as child:
            said = child.hear()
    except UserError as error:
        raise UserError(f"model.onnx cannot be read: {error}") from None
    fault = said.get("fault", "") if isinstance(said, dict) else ""
    if fault is not None:
        raise UserError(brief(str(fault) or "model.onnx cannot be read", 400))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 at byte {error.start}") from None


def _json(path: Path) -> Any:
    """A JSON file that every reader reads alike."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The runtime obeys every one of several equal keys, Python the last: there may be one.
        if len(pairs) != len(found := dict(pairs)):
            names = [name for name, _ in pairs]
            raise UserError(f"{path.name}: {quoted(max(names, key=names.count))} appears twice")
        return found

    def no_number(name: str) -> None:
        raise UserError(f"{path.name}: {name} is no number of JSON")

    try:
        value = json.loads(_text(path), object_pairs_hook=unique, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} is not JSON: {quoted(str(error))}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path.name} is not a JSON object")
    if any(depth > DEEPEST for depth in _depths(value)):
        raise UserError(f"{path.name}: objects and lists stand in one another more than {DEEPEST} deep")
    return value


def _depths(value: Any) -> Iterator[int]:
    """The depth of every object and list."""
    waiting = [(value, 1)]
    while waiting:
        inner, depth = waiting.pop()
        yield depth
        parts = inner.values() if isinstance(inner, dict) else inner
        waiting += [(part, depth + 1) for part in parts if isinstance(part, dict | list)]
