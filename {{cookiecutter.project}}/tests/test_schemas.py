"""The JSON schemas of the files that people edit: current, named in each file, and true of what ships."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from slm.cli.app import app
from slm.cli.reference import REFERENCE, comments_of, reference_pages
from slm.cli.schemas import FILES, SCHEMAS, schema_text

ROOT = Path(__file__).parent.parent
COMMENTED = """\
# Of the file.

# Above the key,
# in two lines.
a: 1            # and behind it
b:              # an object
  c: [1, 2]     # x | y
  # Of d.
  d: "text"
e: 2
"""


@pytest.mark.parametrize("name", FILES)
def test_a_schema_is_current_and_named_and_true(name: str):
    file, model = FILES[name]
    committed = (ROOT / SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(file, model), "run `slm schemas`"
    text = (ROOT / file).read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)", text)
    if named:  # whoever edits the files without an editor that knows it may take the line out
        assert ((ROOT / file).parent / named[1]).resolve() == ROOT / SCHEMAS / f"{name}.schema.json"
    schema = json.loads(committed)
    Draft202012Validator.check_schema(schema)
    value = json.loads(json.dumps(YAML(typ="safe").load(text), default=str))
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
    assert not errors
    assert not Draft202012Validator(schema).is_valid({**value, "unheard_of": 1})


def test_the_reference_pages_are_current(monkeypatch: pytest.MonkeyPatch):
    """Those that are made from code; the others follow your comments when you run `slm schemas`."""
    monkeypatch.chdir(ROOT)
    pages = reference_pages(app)
    for name in ("commands", "task"):
        text = pages[name]
        assert (REFERENCE / f"{name}.md").read_text(encoding="utf-8") == text, "run `slm schemas`"


def test_comments_say_what_a_key_is():
    assert comments_of(COMMENTED) == {
        "a": "Above the key, in two lines. and behind it.",
        "b": "An object.",
        "b.c": "",
        "b.d": "Of d.",
        "e": "",
    }
