"""What the judge of a pull request hands on: verdict/verdict.json, and how it is read.

The job that reports holds a token that may write. It reads this file alone, and only in one form: known keys,
bounded sizes, finite numbers. Standard library only, since that job installs nothing.
"""

import json
import math
import types
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from slm.errors import UserError, brief
from slm.files import Json
from slm.verdict.rows import Verdict

Form = TypeVar("Form")
LARGEST_VERDICT = 4_000_000  # bytes of the file
LONGEST_TEXT, LONGEST_LIST = 20_000, 20_000


@dataclass(frozen=True)
class Figures:
    """Of one model: scores on the test set with their interval; time in ms, the rest in 10^6 bytes."""

    n: int
    score: float
    score_low: float
    score_high: float
    valid_rate: float
    request_ms_p50: float | None = None
    rss_mb: float | None = None
    weights_mb: float | None = None


@dataclass(frozen=True)
class Flip:
    """An example of the validation data whose score changed by `change`."""

    prompt: str
    expected: str
    before: str
    answer: str
    change: float


@dataclass(frozen=True)
class Shown:
    """What is shown beside the gates. won, lost: ids of test examples whose score changed. sample: how many
    examples of the validation data were asked for `flips`.
    """

    processor: str
    candidate: Figures
    released: Figures | None = None
    won: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    sample: int = 0
    flips: list[Flip] = field(default_factory=list)


@dataclass(frozen=True)
class Changes:
    """What the pull request changes. model: whether any file can change the model; judge: files that judge;
    params: name, before and after.
    """

    model: bool
    judge: list[str]
    params: list[list[str]]


@dataclass(frozen=True)
class Judged:
    verdict: Verdict
    changes: Changes | None = None
    shown: Shown | None = None

    def to_json(self) -> Json:
        beside = {"changes": self.changes, "shown": self.shown}
        return self.verdict.to_json() | {n: asdict(v) if v else None for n, v in beside.items()}


def read_judged(path: Path, head: str) -> Judged:
    """The verdict on the commit `head`.

    Raises:
        UserError: the file is not what a judge writes, or it is about another commit.
    """
    try:
        stored = _object(path)
        passed, beside = stored.pop("passed"), {n: stored.pop(n, None) for n in ("changes", "shown")}
        judged = typed(Judged, {"verdict": stored} | {n: v for n, v in beside.items() if v is not None})
    except (ValueError, KeyError, RecursionError, OverflowError) as error:
        raise UserError(f"{path}: this is no verdict: {brief(str(error), 200)}") from None
    if passed is not judged.verdict.passed:
        raise UserError(f"{path}: what it says of the verdict is not what its gates say")
    if judged.verdict.candidate.get("revision") != head:
        raise UserError(f"{path}: the verdict belongs to another commit than the checks")
    return judged


def read_typed(path: Path, form: type[Form]) -> Form:
    """A JSON file of another job as a dataclass.

    Raises:
        UserError: names the file and the first place that is not of this form.
    """
    try:
        return typed(form, _object(path))
    except (ValueError, RecursionError, OverflowError) as error:
        raise UserError(f"{path}: {brief(str(error), 200)}; run the job that makes it again") from None


def _object(path: Path) -> Json:
    if not path.is_file() or path.is_symlink() or path.stat().st_size > LARGEST_VERDICT:
        raise ValueError(f"no plain file of at most {LARGEST_VERDICT} bytes")
    value = json.loads(
        path.read_bytes().decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number
    )
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def typed(form: Any, value: Any, where: str = "") -> Any:
    """A JSON value as its type: a dataclass, a list or object of one type, a text, a number, or a union.

    Raises:
        ValueError: names the place.
    """
    kind, parts = get_origin(form), get_args(form)
    if kind in (Union, types.UnionType):
        for part in parts:
            try:
                return typed(part, value, where)
            except ValueError:
                continue
    elif is_dataclass(form) and isinstance(form, type) and isinstance(value, dict):
        hints, known = get_type_hints(form), {f.name for f in fields(form)}
        if unknown := set(value) - known:
            raise ValueError(f"{where}.{min(unknown)[:60]} is unknown")
        try:
            return form(**{n: typed(hints[n], v, f"{where}.{n}") for n, v in value.items()})
        except TypeError as error:
            raise ValueError(f"{where or 'the file'}: {error}") from None
    elif kind is list and isinstance(value, list) and len(value) <= LONGEST_LIST:
        return [typed(parts[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    elif kind is dict and isinstance(value, dict) and len(value) <= LONGEST_LIST:
        return {typed(str, n, where): typed(parts[1], v, f"{where}.{n[:60]}") for n, v in value.items()}
    elif (
        (kind is not None and value in parts and isinstance(value, str))
        or form is Any
        or (form is type(None) and value is None)
        or (form is float and type(value) in (int, float) and math.isfinite(value))
        or (form in (bool, int) and type(value) is form)
        or (form is str and isinstance(value, str) and len(value) <= LONGEST_TEXT)
    ):  # Literal
        return value
    raise ValueError(f"{where or 'the file'} has another form")
