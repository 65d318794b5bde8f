"""Reasoning and answer are told apart, or the reply is no answer."""

from typing import Any

import pytest
import test_asking
from jsonschema import Draft202012Validator

from slm.config.synthesis import Endpoint
from slm.task.definition import Task
from slm.teacher.rationale import apart, instruction, with_rationale

LABEL = Task(name="t", kind="label", instruction="i", labels=["a", "b"])
TEXT = Task(name="t", kind="text", instruction="i")


def endpoint(**changes: Any) -> Endpoint:
    return test_asking.settings("http://127.0.0.1:9", rationale=True, **changes).endpoint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"rationale": "so", "answer": {"name": "a"}}', ("so", '{"name": "a"}')),
        ('```json\n{"rationale": "", "answer": null}\n```', ("", "null")),
        ('{"rationale": "so", "answer": "{}"}', ("so", '"{}"')),  # a text is no object
        ('{"name": "a"}', (None, None)),
        ('{"rationale": "so", "answer": {}, "note": 1}', (None, None)),
        ('{"rationale": ["so"], "answer": {}}', (None, None)),
        ('{"rationale": "so", "answer": {"n": NaN}}', (None, None)),
        ('{"rationale": "so", "answer": {}, "answer": {"name": "a"}}', (None, None)),
        ('so\nANSWER: {"name": "a"}', (None, None)),
        ("[" * 5000, (None, None)),
    ],
)
def test_a_field_holds_the_reasoning(task: Task, text: str, parts: tuple[str | None, str | None]):
    assert apart(endpoint(), task, text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It is so.\nANSWER: a", ("It is so.", "a")),
        ("It is so.\n\n**ANSWER:**\na\nand b\n", ("It is so.", "a\nand b")),
        ("ANSWER: a", ("", "a")),
        ("It is a.", (None, None)),
        ("I think the ANSWER: a", (None, None)),
        ("It is so.\nANSWER:\n", (None, None)),
        ("ANSWER: a\nNo, wait.\nANSWER: b", (None, None)),
    ],
)
@pytest.mark.parametrize("task", [LABEL, TEXT], ids=["label", "text"])
def test_a_marked_line_stands_between(task: Task, text: str, parts: tuple[str | None, str | None]):
    assert apart(endpoint(), task, text) == parts


def test_a_label_in_a_field(task: Task):
    assert apart(endpoint(response_format="json_object"), LABEL, '{"rationale": "so", "answer": "a"}') == (
        "so",
        "a",
    )
    assert "ANSWER:" in instruction(endpoint(response_format="none"), task) and '"rationale"' in instruction(
        endpoint(), task
    )


def test_the_schema_still_means_the_same():
    own = {
        "type": "object",
        "required": ["room"],
        "properties": {
            "room": {"$ref": "#/$defs/room"},
            "next": {"$ref": "#"},
            "same": {"$ref": "#/properties/room"},
        },
        "$defs": {"room": {"enum": ["attic"]}, "child": {"$ref": "#"}},
    }
    whole = Draft202012Validator(with_rationale(own))
    for answer, fine in [
        ({"room": "attic"}, True),
        ({"room": "shed"}, False),
        ({"room": "attic", "next": {}}, False),
        ({"room": "attic", "same": "shed"}, False),
    ]:
        assert (
            Draft202012Validator(own).is_valid(answer) is fine
            and whole.is_valid({"rationale": "so", "answer": answer}) is fine
        )
    assert not whole.is_valid({"answer": {"room": "attic"}}) and list(with_rationale(own)["properties"]) == [
        "rationale",
        "answer",
    ]
