"""The types of `gates.yaml`, and the points where one contract is looser than another."""

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from slm.config.loader import load_yaml
from slm.verdict.registry import BUILT_IN, INTEGRITY_PREFIX

CONTRACT = Path("gates.yaml")
Metric = r"^(shipped|teacher|base|distilled|finetuned|onnx|int8|int4|data|package)\.[a-z0-9_]+$"


class Gate(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    severity: Literal["block", "warn"]
    metric: str = Field(pattern=Metric)
    over: str | None = Field(None, pattern=Metric, description="divide by this metric")
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def one_limit(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a gate has exactly one of at_least and at_most")
        return self

    @property
    def limit(self) -> float:
        return self.at_least if self.at_least is not None else self.at_most  # type: ignore[return-value]

    def holds(self, value: float) -> bool:
        return math.isfinite(value) and (
            value >= self.limit if self.at_least is not None else value <= self.limit
        )


class Released(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    margin: float = Field(gt=0, le=0.2, description="a drop as large as this must not go unseen")
    best_margin: float = Field(gt=0, le=0.2, description="nor a sum of small drops as large as this")
    # With defaults, so that contracts from before these existed can still be read and compared with.
    alpha: float = Field(
        0.025,
        gt=0,
        le=0.2,
        description="share of equally good models refused by the comparison with the released one",
    )
    best_alpha: float = Field(
        0.015, gt=0, le=0.2, description="the same of the comparison with the best release so far"
    )
    time: float = Field(ge=1, le=10, description="ceiling, as a share of the released model's")
    memory: float = Field(ge=1, le=10)
    weights: float = Field(ge=1, le=10)
    slice_size: int = Field(ge=10)
    slice_alpha: float = Field(gt=0, le=0.2, description="the same of all slices together")


class ExamLimits(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_gap: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="lead of the public test set's score over the hidden exam's that is let through",
    )


class Contract(BaseModel):
    model_config = ConfigDict(extra="forbid")

    gates: list[Gate] = Field(min_length=1)
    released: Released
    allowed_licences: list[str] | None = Field(
        None,
        min_length=1,
        description="of base model and data, as params.yaml and task.yaml write them; absent: any",
    )
    required_expectations: list[str] | None = Field(
        None,
        min_length=1,
        description="columns whose expectations must stand and hold for each labelled file; absent: none",
    )
    exam: ExamLimits = Field(
        default_factory=lambda: ExamLimits(max_gap=0.1), description="of the hidden exam, where there is one"
    )

    @model_validator(mode="after")
    def names_differ(self) -> Self:
        names = [g.name for g in self.gates]
        if len(names) != len(set(names)):
            raise ValueError("two gates have the same name")
        taken = [n for n in names if n in BUILT_IN or n.startswith(INTEGRITY_PREFIX)]
        if taken:
            raise ValueError(f"every verdict already has a gate {taken[0]!r}; choose another name")
        return self

    @property
    def names(self) -> list[str]:
        """Gates that can be waived."""
        return [g.name for g in self.gates] + [g.name for g in BUILT_IN.values() if g.waivable]


def load_contract(path: Path = CONTRACT) -> Contract:
    return load_yaml(path, Contract)


def loosened(before: Contract, after: Contract) -> list[str]:
    """Each way in which `after` lets more through than `before`, as a sentence."""
    now = {g.name: g for g in after.gates}
    lines = []
    for old in before.gates:
        new = now.get(old.name)
        if new is None:
            lines.append(f"gate {old.name!r} was removed")
            continue
        if old.severity == "block" and new.severity == "warn":
            lines.append(f"gate {old.name!r} only warns now")
        if (old.metric, old.over) != (new.metric, new.over):
            lines.append(f"gate {old.name!r} now looks at {new.metric}{f' / {new.over}' if new.over else ''}")
        elif (old.at_least is None) != (new.at_least is None):
            lines.append(f"gate {old.name!r} changed its direction")
        elif (new.limit < old.limit) if old.at_least is not None else (new.limit > old.limit):
            lines.append(f"gate {old.name!r} went from {old.limit} to {new.limit}")
    for field in ("margin", "best_margin", "time", "memory", "weights", "slice_size"):
        old_value, new_value = getattr(before.released, field), getattr(after.released, field)
        if new_value > old_value:
            lines.append(f"released.{field} went from {old_value} to {new_value}")
    for field in ("alpha", "best_alpha", "slice_alpha"):
        old_value, new_value = getattr(before.released, field), getattr(after.released, field)
        if new_value < old_value:
            lines.append(f"released.{field} went from {old_value} to {new_value}")
    if after.exam.max_gap > before.exam.max_gap:
        lines.append(f"exam.max_gap went from {before.exam.max_gap} to {after.exam.max_gap}")
    for field, looser in {
        "allowed_licences": "allows",
        "required_expectations": "no longer requires",
    }.items():
        old_list, new_list = getattr(before, field), getattr(after, field)
        if old_list is not None and new_list is None:
            lines.append(f"{field} was removed")
        elif old_list is not None:
            more, fewer = set(new_list) - set(old_list), set(old_list) - set(new_list)
            changed = sorted(more if looser == "allows" else fewer)
            lines += [f"{field} {looser} {', '.join(changed)}"] if changed else []
    return lines
