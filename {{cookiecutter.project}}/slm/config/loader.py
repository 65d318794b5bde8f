"""Read a YAML file into a typed model; an error names the file, the line, the value and what is allowed."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slm.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """An unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


def load_yaml(path: Path, model: type[Model], context: dict[str, Any] | None = None) -> Model:
    """context: what the model's validators are told beside the file."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start : error.start + 1]
        raise UserError(f"{path}:{line}: byte {byte!r} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it must be a file") from None
    return parse_yaml(text, str(path), model, context)


def parse_yaml(text: str, path: str, model: type[Model], context: dict[str, Any] | None = None) -> Model:
    """path: how an error calls the text."""
    try:
        tree = YAML(typ="rt").load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{line}: not YAML: {getattr(error, 'problem', error)}; mend the line"
        ) from None
    try:
        return model.model_validate(tree, context=context)
    except ValidationError as error:
        first = error.errors()[0]
        where = [part for part in first["loc"] if isinstance(part, str | int)]
        name = ".".join(str(part) for part in where)
        if first["type"] == "extra_forbidden":
            message = f"{name} is unknown; remove it or correct the spelling"
        elif first["type"] == "missing":
            message = f"{name} is missing; add it"
        else:
            message = f"{name} is {repr(first['input'])[:200]}: {first['msg']}; correct the value"
        raise UserError(f"{path}:{_line(tree, where)}: {message}") from None


def _line(tree: Any, where: list[str | int]) -> int:
    """Line (1-based) of the deepest part of `where` that the file has."""
    line = 1
    for part in where:
        try:
            line = (tree.lc.key(part) if isinstance(part, str) else tree.lc.item(part))[0] + 1
            tree = tree[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line
