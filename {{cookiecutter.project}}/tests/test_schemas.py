"""The JSON schemas of the files that people edit: current, named in each file, and true of what ships."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from slm.cli.schemas import FILES, SCHEMAS, schema_text

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", FILES)
def test_a_schema_is_current_and_named_and_true(name: str):
    file, model = FILES[name]
    committed = (ROOT / SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(file, model), "run `slm schemas`"
    text = (ROOT / file).read_text(encoding="utf-8")
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", text.splitlines()[0])
    assert named and ((ROOT / file).parent / named[1]).resolve() == ROOT / SCHEMAS / f"{name}.schema.json"
    schema = json.loads(committed)
    Draft202012Validator.check_schema(schema)
    value = json.loads(json.dumps(YAML(typ="safe").load(text), default=str))
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
    assert not errors
    assert not Draft202012Validator(schema).is_valid({**value, "unheard_of": 1})
