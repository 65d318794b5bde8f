"""What a search may change: names of params.yaml, each with a range or choices, checked against the
parameters' own types and ranges.
"""

from typing import Any, Self

from optuna.trial import Trial
from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from slm.config.edit import merge
from slm.config.loader import Strict
from slm.config.params import Params, value_of

STAGES = ("distill", "finetune")  # what makes a student of the teacher's answers


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """{"distill.layers": 12} as params.yaml has it."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


class Searched(Strict):
    name: SkipJsonSchema[str]  # the key that it stands under
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(None, gt=0)
    log: bool = False
    choices: list[bool | int | float | str | None] | None = Field(None, min_length=1)
    _whole: bool = PrivateAttr(False)

    @model_validator(mode="after")
    def fits(self, info: ValidationInfo) -> Self:
        params: Params = (info.context or {})["params"]
        if self.name.split(".")[0] not in STAGES:
            raise ValueError(
                f"only {' and '.join(STAGES)} are searched: others would change what trials start from"
            )
        try:
            now = value_of(params.model_dump(), self.name)
        except (KeyError, TypeError):
            raise ValueError("params.yaml has no such parameter") from None
        ends = [self.low, self.high]
        if (self.choices is None) == (ends == [None, None]):
            raise ValueError("give either low and high, or choices")
        if self.choices is None:
            if self.low is None or self.high is None or self.low >= self.high:
                raise ValueError("low must be below high, and both must be given")
            self._whole = isinstance(now, int) and not isinstance(now, bool)
            if isinstance(now, bool | str | dict | None):
                raise ValueError(f"{now!r} is not a number: give choices")
            if self._whole and not all(isinstance(v, int | None) for v in (*ends, self.step)):
                raise ValueError("low, high and step must be whole numbers, as the parameter is")
            if self.log and (self.step is not None or self.low <= 0):
                raise ValueError("log needs low above 0, and no step")
        for value in self.choices or ends:
            tree = params.model_dump()
            merge(tree, nested({self.name: value}))
            try:
                Params.model_validate(tree)
            except ValidationError as error:
                raise ValueError(f"{value} is refused: {error.errors()[0]['msg']}") from None
        return self

    def allows(self, value: Any) -> bool:
        if self.choices is not None:
            return value in self.choices
        low, high = self._ends()
        return low <= value <= high

    def suggest(self, trial: Trial) -> Any:
        if self.choices is not None:
            return trial.suggest_categorical(self.name, self.choices)
        low, high = self._ends()
        if self._whole:
            return trial.suggest_int(self.name, int(low), int(high), step=int(self.step or 1), log=self.log)
        # Three digits, as a person would write it: what is tried is what is applied.
        return float(f"{trial.suggest_float(self.name, low, high, step=self.step, log=self.log):.3g}")

    def _ends(self) -> tuple[float, float]:
        assert self.low is not None and self.high is not None  # `fits` saw to it
        return self.low, self.high


class Space(Strict):
    rungs: list[float] = Field(min_length=1, description="shares of distill.epochs, rising, the last is 1")
    most_parameters_m: float | None = Field(gt=0, description="of the student; null: any")
    parameters: dict[str, Searched] = Field(min_length=1)

    @field_validator("parameters", mode="before")
    @classmethod
    def named(cls, value: Any) -> Any:
        return {
            name: {"name": name, **searched} if isinstance(searched, dict) else searched
            for name, searched in value.items()
        }

    @field_validator("rungs")
    @classmethod
    def rising(cls, value: list[float]) -> list[float]:
        if value != sorted(set(value)) or value[0] <= 0 or value[-1] != 1:
            raise ValueError("shares must rise from above 0 to 1")
        return value
