"""Short memory: a batch in parts teaches what the whole batch teaches, and what cannot fit is said before the first step."""

from pathlib import Path

import pytest
import torch

from slm import memory
from slm.chat import collate, encode_example
from slm.errors import UserError
from slm.models import load_model, load_tokenizer
from slm.params import load_params
from slm.records import TASK, read_records
from slm.training import train


@pytest.fixture
def lesson(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    params = load_params()
    settings = params.distill.model_copy(update={"epochs": 2, "learning_rate": 1e-3, "rounding": None})
    tokenizer = load_tokenizer(Path("models/teacher"))
    examples = [encode_example(tokenizer, r) for r in read_records(TASK / "train.jsonl", True)]  # ten: the last batch is not full

    def run(name: str) -> tuple[dict, dict]:
        model = load_model(Path("models/teacher"), params)
        facts = train("distill", model, tokenizer, examples, settings, params, {"run": name}, Path(f"{name}.json"))
        return facts, model.state_dict()

    model = load_model(Path("models/teacher"), params)
    longest = max(examples, key=lambda e: len(e["prompt_ids"]) + len(e["answer_ids"]))
    row = memory.kept_for_backward(model, collate([longest], tokenizer.pad_token_id))
    state = memory.ADAM * sum(p.numel() for p in model.parameters())
    run.row, run.state, run.batch_size = row, state, settings.batch_size
    return run


def leave(monkeypatch: pytest.MonkeyPatch, room: float) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: room / memory.SHARE)


def test_what_a_pass_keeps_grows_with_the_rows(tiny):
    model, _ = tiny
    one = {"prompt_ids": list(range(9)), "answer_ids": [3, 4, 5]}
    single, double = (memory.kept_for_backward(model, collate([one] * rows, 0)) for rows in (1, 2))
    hidden = 12 * model.config.hidden_size * 4  # bytes of one layer's output
    assert single > 4 * model.config.num_hidden_layers * hidden
    assert double == pytest.approx(2 * single, rel=0.1)


@pytest.mark.parametrize(("rows", "said"), [(2.5, "2 of 4 examples at once\n"), (1.1, "1 of 4 examples at once\n")])
def test_a_batch_in_parts_teaches_the_same(lesson, monkeypatch, capsys, rows: float, said: str):
    facts, whole = lesson("whole")
    assert "memory is short" not in capsys.readouterr().out
    leave(monkeypatch, lesson.state + rows * lesson.row)
    again, parts = lesson("parts")
    assert f"distill: memory is short: {said}" in capsys.readouterr().out
    assert again["steps"] == facts["steps"] and again["loss"] == pytest.approx(facts["loss"], rel=1e-4)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-4)


def test_where_no_row_fits_activations_are_computed_twice(lesson, monkeypatch, capsys):
    facts, whole = lesson("whole")
    leave(monkeypatch, lesson.state + 0.9 * lesson.row)
    again, twice = lesson("twice")
    assert "examples at once, activations computed twice\n" in capsys.readouterr().out
    assert again["loss"] == pytest.approx(facts["loss"], rel=1e-4)
    for name, value in whole.items():
        torch.testing.assert_close(twice[name], value, rtol=0, atol=1e-4)


def test_too_little_for_one_row_is_refused_with_what_it_takes(lesson, monkeypatch):
    leave(monkeypatch, lesson.state)
    with pytest.raises(UserError, match=r"distill: training needs .* GB beside the model's weights, and 80% of the free .* GB may be used"):
        lesson("none")
