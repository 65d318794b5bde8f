"""Short memory: a batch in parts teaches what the whole batch teaches, and what cannot fit is said before the
first step.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.config.params import Rounding, load_params
from slm.errors import UserError
from slm.inference.engine import answer_all
from slm.modeling import memory
from slm.modeling.checkpoints import load_model, load_tokenizer
from slm.modeling.encoding import collate, encode_example, encode_prompt
from slm.modeling.generation import _generate_batch
from slm.modeling.qat import round_in_training
from slm.task.records import TASK, read_records
from slm.training.trainer import TrainingRun, train


@pytest.fixture
def fit(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    params = load_params()
    settings = params.distill.model_copy(
        update={"epochs": 2, "learning_rate": 1e-3, "rounding": None, "save_steps": 50, "patience": None}
    )
    tokenizer = load_tokenizer(Path("models/teacher"))
    # ten: the last batch is not full
    examples = [encode_example(tokenizer, r) for r in read_records(TASK / "train.jsonl", True)]

    def run(name: str) -> tuple[list[dict], Any]:
        """The training curve and the model."""
        model = load_model(Path("models/teacher"), params)
        trained = train(TrainingRun("distill", name, settings, params), model, tokenizer, examples)
        return trained.curve, model

    run.once, run.row, run.sparse_row = memory.needs(
        load_model(Path("models/teacher"), params), examples, tokenizer.pad_token_id
    )
    return run


def leave(monkeypatch: pytest.MonkeyPatch, room: float) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: room / memory.SHARE)


def test_what_a_pass_keeps_grows_with_the_rows(tiny):
    model, _ = tiny
    one = {"prompt_ids": list(range(9)), "answer_ids": [3, 4, 5]}
    single, double = (memory.kept_for_backward(model, collate([one] * rows, 0)) for rows in (1, 2))
    hidden = 12 * model.config.hidden_size * 4  # bytes of one layer's output
    assert single > model.config.num_hidden_layers * hidden
    assert double == pytest.approx(2 * single, rel=0.1)


def same(one: tuple[list[dict], Any], other: tuple[list[dict], Any]) -> None:
    assert [row["step"] for row in one[0]] == [row["step"] for row in other[0]] == [5]
    for name in ("loss", "grad_norm"):
        assert one[0][0][name] == pytest.approx(other[0][0][name], rel=1e-4), name
    for name, value in one[1].state_dict().items():
        torch.testing.assert_close(other[1].state_dict()[name], value, rtol=0, atol=1e-4)


def twice(model: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


@pytest.mark.parametrize(
    ("rows", "said"), [(2.5, "2 of 4 examples at once\n"), (1.1, "1 of 4 examples at once\n")]
)
def test_a_batch_in_parts_teaches_the_same(fit, monkeypatch, capsys, rows: float, said: str):
    whole = fit("whole")
    assert "memory is short" not in capsys.readouterr().out
    leave(monkeypatch, fit.once + rows * fit.row)
    parts = fit("parts")
    assert f"distill: memory is short: {said}" in capsys.readouterr().out
    assert not twice(parts[1])
    same(whole, parts)


def test_where_no_row_fits_activations_are_computed_twice(fit, monkeypatch, capsys):
    whole = fit("whole")
    leave(monkeypatch, fit.once + fit.sparse_row + 0.9 * (fit.row - fit.sparse_row))
    sparse = fit("sparse")
    assert "examples at once, activations computed twice\n" in capsys.readouterr().out
    assert twice(sparse[1]) and not twice(whole[1])
    same(whole, sparse)


def test_too_little_for_one_row_is_refused_with_what_it_takes(fit, monkeypatch):
    leave(monkeypatch, fit.once)
    with pytest.raises(
        UserError,
        match=r"distill: training needs .* GB beside .*, but only 80% of the free .* GB may be used",
    ):
        fit("none")


def test_weights_that_are_rounded_in_each_pass_count_once(tiny):
    """They are kept for the backward pass, but no more of them for more rows."""
    model, examples = copy.deepcopy(tiny[0]), [{"prompt_ids": list(range(9)), "answer_ids": [3, 4, 5]}]
    plain = memory.needs(model, examples, 0)
    round_in_training(model, Rounding(bits=4, group_size=16))
    rounded = memory.needs(model, examples, 0)
    blocks = sum(
        p.numel() for layer in model.model.layers for name, p in layer.named_parameters() if "proj" in name
    )
    assert rounded[0] - plain[0] == pytest.approx(4 * blocks, rel=0.01)
    assert rounded[1] == pytest.approx(plain[1], rel=0.05)


def test_groups_that_would_cross_rows_of_weights_are_refused(tiny):
    """The width of the tiny model is no multiple: a scale would be shared by weights of two rows, on a grid
    that Olive does not make.
    """
    model = copy.deepcopy(tiny[0])
    with pytest.raises(
        UserError,
        match=f"group_size is 48, but the {model.config.hidden_size} inputs of a layer's self_attn.q_proj",
    ):
        round_in_training(model, Rounding(bits=4, group_size=48))


def test_answers_come_in_smaller_batches_where_memory_is_short(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(project)
    params, folder = load_params(), Path("models/teacher")
    tokenizer = load_tokenizer(folder)
    prompts = [encode_prompt(tokenizer, r.prompt) for r in read_records(TASK / "validation.jsonl", True)]

    def said() -> dict[int, list[int]]:
        return {i: answer.token_ids for i, answer in answer_all(folder, tokenizer, prompts, params, 8, 8)}

    whole, seen = said(), []
    assert not capsys.readouterr().out
    needed: list[int] = []
    with monkeypatch.context() as noted:
        noted.setattr(memory, "most_rows", lambda _, each, __: needed.append(each) or 8)
        said()
    leave(monkeypatch, 2.9 * needed[0])
    monkeypatch.setattr(
        "slm.modeling.generation._generate_batch",
        lambda m, t, p, rows, *rest: seen.append(len(rows)) or _generate_batch(m, t, p, rows, *rest),
    )
    assert said() == whole and set(seen) == {2}
    assert "memory is short: 2 of 8 prompts at once" in capsys.readouterr().out
    leave(monkeypatch, 0.5 * needed[0])
    with pytest.raises(
        UserError, match=r"an answer to a prompt of \d+ tokens needs .* GB beside the model's weights"
    ):
        said()


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    free = memory.free_bytes(torch.device("cpu"))
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.container_bytes() == float("inf")
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\nactive_file 100000\ninactive_file 200000\n")
    assert memory.free_bytes(torch.device("cpu")) == 600_000 < free
