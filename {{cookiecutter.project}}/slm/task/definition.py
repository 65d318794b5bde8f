"""What the model must do: `task/task.yaml`, typed."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from slm.config.loader import load_yaml
from slm.task.records import TASK
from slm.task.strict import text_fault
from slm.task.text import nfc

# The figures of one answer that can be a kind's score (slm/task/metrics.py says what each is); the first is,
# unless task.yaml names another.
SCORES = {
    "json": ("exact_match", "field_f1"),
    "label": ("exact_match",),
    "text": ("rouge_l", "chrf"),
    "answer": ("token_f1", "exact_match"),
    "reasoning": ("exact_match",),
}


class Task(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    kind: Literal["json", "label", "text", "answer", "reasoning"] = Field(
        description="how an answer is read and scored, see slm/task/metrics.py"
    )
    score: str = Field("", description="which of the kind's figures decides; absent: the kind's first")
    instruction: str = Field(min_length=1, description="what a model that was not taught must be told")
    answer_schema: dict[str, Any] = Field(
        default_factory=dict, description="JSON schema of an answer (kind json)"
    )
    class_field: str | None = Field(
        None, description="field of a JSON answer that is its class, for the confusion table"
    )
    license: str | None = Field(
        None, description="of the data in task/, an SPDX expression; gates.yaml may ask for it"
    )
    labels: list[str] = Field(default_factory=list, description="the labels (kind label)")
    no_answer: str | None = Field(
        None, description="the answer where the passage has none (kind answer); absent: it always has one"
    )
    rationale: bool = Field(
        True,
        description="a rationale stands before the final answer (kind reasoning)",
    )

    @field_validator("name", "instruction", "no_answer", "labels")
    @classmethod
    def readable(cls, value: str | list[str] | None) -> str | list[str] | None:
        for text in value if isinstance(value, list) else [value or None]:
            if text is not None and (fault := text_fault(text)):
                raise ValueError(f"the text {fault}")
        return value

    @model_validator(mode="after")
    def known_score(self) -> Self:
        self.labels = [nfc(label) for label in self.labels]
        self.no_answer = nfc(self.no_answer) if self.no_answer else self.no_answer
        choices = SCORES[self.kind]
        self.score = self.score or choices[0]
        if self.score not in choices:
            raise ValueError(
                f"score {self.score!r} is no figure of kind {self.kind}; there are: {', '.join(choices)}"
            )
        if self.kind == "label" and len(set(self.labels)) < 2:
            raise ValueError("kind label needs at least two labels")
        return self

    @property
    def graded(self) -> bool:
        """Whether an answer can be partly right."""
        return self.score != "exact_match"

    @cached_property
    def plain_schema(self) -> dict[str, Any]:
        """A plain copy: what the YAML reader returns remembers lines, and is slow to look into."""
        return json.loads(json.dumps(self.answer_schema, default=str))

    @cached_property
    def validator(self) -> Draft202012Validator:
        return Draft202012Validator(self.plain_schema)

    @cached_property
    def cased(self) -> frozenset[str]:
        """Values enumerated in the schema that only letter case tells apart."""
        named = {nfc(text) for text in _enumerated(self.plain_schema)}
        times = Counter(text.casefold() for text in named)
        return frozenset(text for text in named if times[text.casefold()] > 1)

    @cached_property
    def known_answers(self) -> dict[str, bool]:
        """Whether an answer is valid, of those that were asked before: models repeat each other, and a check
        takes a millisecond.
        """
        return {}


def _enumerated(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        values = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
        yield from (value for value in values if isinstance(value, str))
    if isinstance(schema, dict | list):
        for inner in schema.values() if isinstance(schema, dict) else schema:
            yield from _enumerated(inner)


def load_task(path: Path = TASK / "task.yaml") -> Task:
    return load_yaml(path, Task)
