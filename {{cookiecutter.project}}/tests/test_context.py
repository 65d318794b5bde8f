"""What does not fit into a model's context is refused before anything costs time, and by generation."""

import copy
from pathlib import Path
from typing import Any

import pytest
from test_control_tokens import GEMMA

from pipeline import check, evaluate
from slm.config.params import Params, load_params
from slm.errors import UserError
from slm.files import write_text
from slm.modeling.checkpoints import save_model
from slm.modeling.encoding import (
    encode_answer,
    encode_prompt,
    keep_contents_plain,
    too_long,
    use_short_template,
)
from slm.modeling.generation import generate
from slm.task.records import DATA_ERRORS, Record

CHATML, NO_SYSTEM = (
    (Path(__file__).parent / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    for name in ("chatml", "no_system")
)


def record(asked: str, answer: str = "", **more: Any) -> Record:
    messages = [{"role": "user", "content": asked}]
    return Record("1", [*messages, *([{"role": "assistant", "content": answer}] if answer else [])], **more)


@pytest.fixture
def small(project: Path, tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose base model has a context of 64 tokens, and 8 for an answer."""
    monkeypatch.chdir(project)
    model, tokenizer = copy.deepcopy(tiny)
    model.config.max_position_embeddings = 64
    tokenizer.chat_template = CHATML
    save_model(model, tokenizer, Path("models/base"))
    return project


def limited(synthesize: int = 8, measure: int = 8, teacher: str = "local") -> Params:
    params = load_params()
    params.synthesize.max_new_tokens, params.measure.max_new_tokens = synthesize, measure
    params.synthesize.teacher = teacher  # type: ignore[assignment]
    return params


def test_a_labelled_answer_counts_with_its_request(small: Path, tiny):
    def faults(*records: Record) -> list[str]:
        named = [(f"task/train.jsonl:{i}", r) for i, r in enumerate(records, 1)]
        return check.beyond_context(check.MODELS[0], limited(), named)

    assert faults(record("close", "blinds"), record("close")) == []
    long = record("close", "blinds " * 100)
    (fault,) = faults(record("close"), long)
    (said,) = {len(encode_answer(tokenizer, long.answer)) for tokenizer in [copy.deepcopy(tiny[1])]}
    assert (
        fault.startswith("task/train.jsonl:2: ")
        and f"its answer has {said}, more than the context of 64" in fault
    )
    (fault,) = faults(record("close " * 100, "blinds"))
    assert "its answer may have 8 (" in fault


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"measure": 60}, "measure.max_new_tokens"),
        ({"synthesize": 60}, "synthesize.max_new_tokens"),
        ({"synthesize": 60, "teacher": "endpoint"}, None),
        ({}, None),
    ],
)
def test_the_largest_limit_of_an_answer_counts(small: Path, limits: dict[str, Any], named: str | None):
    faults = check.beyond_context(
        check.MODELS[0], limited(**limits), [("task/test.jsonl:1", record("close"))]
    )
    assert bool(faults) == (named is not None) and all(f"may have 60 ({named})" in fault for fault in faults)


def test_the_base_model_reads_the_instruction_too(small: Path):
    test = [record("close", "blinds", line=7)]
    assert check.beyond_untaught("Say light or timer.", limited(), test) == []
    (fault,) = check.beyond_untaught("word " * 60, limited(), test)
    assert fault.startswith("task/test.jsonl:7, after the instruction of task.yaml: the request has ")
    params = limited()
    params.evaluate.sample["base"] = 0
    assert check.beyond_untaught("word " * 60, params, test) == []


@pytest.mark.parametrize(
    "template", [GEMMA, NO_SYSTEM + "{{ messages[0]['content'] }}"], ids=["gemma", "short"]
)
def test_what_a_familys_template_does_not_take_is_named(tiny, template: str):
    _, tokenizer = copy.deepcopy(tiny)
    tokenizer.chat_template = NO_SYSTEM + template.replace(NO_SYSTEM, "")
    keep_contents_plain(tokenizer)
    told = record("close", "blinds")
    told.messages.insert(0, {"role": "system", "content": "s"})
    (fault,) = too_long(
        tokenizer, 8192, (8, "x"), [("task/train.jsonl:1", record("a", "b")), ("task/train.jsonl:2", told)]
    )
    assert fault.startswith(
        "task/train.jsonl:2: the model's chat template does not take a conversation of system, user"
    )
    with pytest.raises(UserError, match="System role not supported"):
        encode_prompt(tokenizer, told.prompt)


def test_no_model_answers_beyond_its_context(small: Path, tiny):
    model, tokenizer = copy.deepcopy(tiny)
    model.config.max_position_embeddings = 64
    for length, fits in ((56, True), (57, False)):
        answers = generate(model, tokenizer, [[5] * length, [5]], 2, 8)
        if fits:
            assert len(list(answers)) == 2
        else:
            with pytest.raises(
                UserError, match="a prompt of 57 tokens and an answer of up to 8 are more than"
            ):
                list(answers)
    use_short_template(tokenizer)
    save_model(model, tokenizer, Path("models/finetuned"))
    for asked, fits in (("close", True), ("word " * 100, False)):
        answers = evaluate.by_transformers(Path("models/finetuned"), [record(asked).prompt], load_params())
        if fits:
            assert len(list(answers)) == 1
        else:
            with pytest.raises(UserError, match="the model's context of 64"):
                list(answers)


def test_check_names_all_that_is_wrong_before_anything_is_trained(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(project)
    Path("models/base/config.json").unlink()  # no checkpoint, whose context would come first
    suite = Path("task/expectations/synthetic.json")
    good = suite.read_text(encoding="utf-8")
    for old, new, said in (
        ('"leak"', '"leek"', "the nearest is 'leak'"),
        ('"expect_column_values_to_be_unique"', '"expect_uniqueness"', f"{suite}:"),
        ("{", "", "not a suite: "),
    ):
        write_text(suite, good.replace(old, new, 1))
        with pytest.raises((UserError, SystemExit)) as error:
            check.main()
        message = str(error.value) + capsys.readouterr().err
        assert said in message and str(suite) in message
    write_text(suite, good)
    with pytest.raises((UserError, SystemExit)) as error:
        check.main()  # the tiny project repeats its requests
    message = str(error.value) + capsys.readouterr().err
    assert str(suite) not in message and "task/train.jsonl" in message
    assert DATA_ERRORS.exists() == ("more" in message)
