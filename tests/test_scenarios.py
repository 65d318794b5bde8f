"""docs/scenarios.md lists the scenarios that there are."""

import re

from benchmarks.workflows import SCENARIOS
from tests.bake import TEMPLATE


def test_every_scenario_is_listed_where_it_is():
    text = (TEMPLATE / "docs" / "scenarios.md").read_text(encoding="utf-8")
    listed = {
        name: re.findall(r"^\| `(test_\w+)` \|", part, re.MULTILINE)
        for name, part in re.findall(r"^## [^\n]*`(\S+)`(.*?)(?=^## |\Z)", text, re.M | re.S)
    }
    there = {name: re.findall(r"^def (test_\w+)", (TEMPLATE / name).read_text(encoding="utf-8"), re.MULTILINE) for name in SCENARIOS}
    assert listed == there
