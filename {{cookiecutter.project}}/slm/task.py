"""What the model must do: `task/task.yaml`, typed."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field

from slm.config import load_yaml
from slm.records import TASK


class Task(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    kind: Literal["json", "label", "text"] = Field(description="how an answer is read and scored, see slm/scoring.py")
    instruction: str = Field(min_length=1, description="what a model that was not taught must be told")
    answer_schema: dict[str, Any] = Field(default_factory=dict, description="JSON schema of an answer (kind json)")
    class_field: str | None = Field(None, description="field of a JSON answer that is its class, for the confusion table")
    license: str | None = Field(None, description="of the data in task/, an SPDX expression; gates.yaml may ask for it")
    labels: list[str] = Field(default_factory=list, description="the labels (kind label)")

    @cached_property
    def plain_schema(self) -> dict[str, Any]:
        """A plain copy: what the YAML reader returns remembers lines, and is slow to look into."""
        return json.loads(json.dumps(self.answer_schema, default=str))

    @cached_property
    def validator(self) -> Draft202012Validator:
        return Draft202012Validator(self.plain_schema)

    @cached_property
    def known_answers(self) -> dict[str, bool]:
        """Whether an answer is valid, of those that were asked before: models repeat each other, and a check takes a millisecond."""
        return {}


def load_task(path: Path = TASK / "task.yaml") -> Task:
    return load_yaml(path, Task)
