"""`waivers.yaml`, typed: which failed gates are let through, by whom, why and until when.

A pull request must not waive its own gates, so a waiver counts once it is on the default branch: who judges
reads the file of there.
"""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from slm.config.loader import load_yaml
from slm.verdict.contract import Contract
from slm.verdict.registry import BUILT_IN
from slm.verdict.rows import Row

WAIVERS = Path("waivers.yaml")


class Waiver(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    gate: str = Field(min_length=1, description="name of a blocking gate, as the verdict shows it")
    owner: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    until: date = Field(description="the last day")

    @field_validator("gate")
    @classmethod
    def may_be_waived(cls, name: str, info: ValidationInfo) -> str:
        if name in BUILT_IN and not BUILT_IN[name].waivable:
            raise ValueError("what ties the verdict to the bytes that ship cannot be waived")
        known = (info.context or {}).get("gates")
        if known is not None and name not in known:
            raise ValueError(f"no gate has this name; there are: {', '.join(known)}")
        return name

    @field_validator("until", mode="before")
    @classmethod
    def iso(cls, value: Any) -> Any:
        if not isinstance(value, str | date):  # a number would be read as seconds since 1970
            raise ValueError("no ISO date such as 2030-01-31")
        return value


class Waivers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    waivers: list[Waiver]

    @field_validator("waivers")
    @classmethod
    def gates_differ(cls, waivers: list[Waiver]) -> list[Waiver]:
        names = [w.gate for w in waivers]
        if len(names) != len(set(names)):
            raise ValueError("two waivers name the same gate")
        return waivers


def load_waivers(contract: Contract, path: Path = WAIVERS) -> list[Waiver]:
    """The waivers of this checkout, each of a gate that the contract knows; none where there is no file."""
    return load_yaml(path, Waivers, {"gates": contract.names}).waivers if path.exists() else []


def waive(rows: list[Row], waivers: list[Waiver], today: date) -> list[Row]:
    """The rows, with the blocking gates that failed and that a waiver in force names marked as waived.

    A waiver whose last day is over changes nothing but the `why`.
    """
    by_gate = {w.gate: w for w in waivers}
    return [_waived(row, by_gate.get(row.name), today) for row in rows]


def _waived(row: Row, waiver: Waiver | None, today: date) -> Row:
    if waiver is None or row.severity != "block" or row.passed is not False:
        return row
    until = waiver.until.isoformat()
    if today > waiver.until:
        return replace(row, why=f"{row.why}; the waiver of {waiver.owner} ended on {until}")
    return replace(row, waived={"owner": waiver.owner, "reason": waiver.reason, "until": until})


def waived_since(before: list[Waiver], after: list[Waiver]) -> list[str]:
    """Each waiver that `after` adds, moves to another gate or prolongs, as a sentence."""
    ends = {w.gate: w.until for w in before}
    return [
        f"gate {w.gate!r} is waived until {w.until.isoformat()} ({w.owner}: {w.reason})"
        for w in after
        if w.gate not in ends or w.until > ends[w.gate]
    ]
