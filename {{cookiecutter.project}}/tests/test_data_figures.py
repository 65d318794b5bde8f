"""Figures of the data, and how far they drifted from those of the released model."""

import json

import pytest

from slm.errors import UserError
from slm.verdict.data_figures import data_figures, distance


def split(classes: dict[str, int], tags: dict[str, int] | None = None) -> dict:
    return {"records": sum(classes.values()), "classes": classes, "tags": tags or {}}


DATA = {
    "splits": {"train": split({"a": 60, "b": 40}, {"plain": 100}), "test": split({"a": 5, "b": 4, "c": 1})},
    "doubtful": {"looked_at": 200, "found": 5, "shown": []},
}


def test_shares(task):
    found = data_figures(task, DATA, {"kept": 300, "with_provenance": 150}, None)
    assert found == {
        "records": 100,
        "provenance": 0.5,
        "synthetic_share": 0.75,
        "largest_class": 0.6,
        "fewest_examples": 0,
        "doubtful_labels": 0.025,
    }


def test_a_task_without_classes_has_no_balance(task):
    nothing = {"looked_at": 0, "found": 0, "shown": []}
    data = {"splits": {"train": split({"": 100}), "test": split({"": 10})}, "doubtful": nothing}
    assert data_figures(task, data, None, None) == {"records": 100}


def test_distance():
    assert distance({"a": 3, "b": 1}, {"a": 30, "b": 10}) == pytest.approx(0, abs=1e-6)
    assert distance({"a": 3}, {"b": 3}) == pytest.approx(1)
    assert 0 < distance({"a": 3, "b": 1}, {"a": 1, "b": 3}) < 1
    assert distance({}, {}) == 0
    assert distance({}, {"a": 1}) == 1


def line(name: str, tag: str) -> str:
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": json.dumps({"name": name, "arguments": {}})},
    ]
    return json.dumps({"id": "1", "messages": messages, "tags": [tag]}) + "\n"


def test_drift_is_against_the_released_models_data(task):
    same = line("a", "plain") * 6 + line("b", "plain") * 4
    assert data_figures(task, DATA, None, same)["drift"] == pytest.approx(0, abs=1e-6)
    other = line("a", "plain") + line("b", "plain") * 9
    assert data_figures(task, DATA, None, other)["drift"] > 0.2
    tagged = line("a", "typo") * 6 + line("b", "typo") * 4
    assert data_figures(task, DATA, None, tagged)["drift"] == pytest.approx(1)


def test_no_drift_is_claimed_where_that_commit_is_not_here(task):
    assert "drift" not in data_figures(task, DATA, None, None)


def test_data_of_that_commit_that_cannot_be_read_is_an_error(task):
    with pytest.raises(UserError, match=r"train\.jsonl of the released commit"):
        data_figures(task, DATA, None, "nonsense\n")
