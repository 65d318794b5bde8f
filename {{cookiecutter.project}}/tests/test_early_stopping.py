"""Early stopping: the score decides, the best weights are kept, and a killed training ends as one that was
not.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_synthetic import LOSSY, without_bytes

from slm.config.params import load_params
from slm.errors import UserError
from slm.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from slm.modeling.checkpoints import load_model, load_tokenizer
from slm.modeling.encoding import encode_example
from slm.task.definition import load_task
from slm.task.records import TASK, read_records
from slm.training import trainer as training
from slm.training.early_stopping import validation_scorer

SCORES = [0.1, 0.5, 0.4, 0.5, 0.9]  # with a patience of two, the fourth ends it: as good is no better


@pytest.fixture
def fit(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[dict[str, Any], Any, list[Any]]]]:
    monkeypatch.chdir(project)
    params = load_params()
    settings = params.distill.model_copy(
        update={"epochs": 5, "save_steps": 3, "patience": 2, "learning_rate": 1e-3, "rounding": None}
    )
    tokenizer = load_tokenizer(Path("models/teacher"))
    examples = [encode_example(tokenizer, r) for r in read_records(TASK / "train.jsonl", True)]

    def run(
        name: str, scores: list[float], killed: int | None = None, patience: int | None = 2
    ) -> tuple[dict[str, Any], Any, list[Any]]:
        model, seen = load_model(Path("models/teacher"), params), []

        def score(scored: Any) -> float:
            if len(seen) == killed:
                raise KeyboardInterrupt
            seen.append({k: v.clone() for k, v in scored.state_dict().items()})
            return scores[len(seen) - 1]

        changed = settings.model_copy(update={"patience": patience})
        chosen = training.TrainingRun("distill", name, changed, params, score=score)
        trained = training.train(chosen, model, tokenizer, examples)
        write_json(Path(f"{name}.json"), trained.curve)
        return trained.facts, trained.model, seen

    yield run


def test_training_stops_when_the_score_no_longer_rises_and_keeps_the_best_weights(fit):
    facts, model, seen = fit("whole", SCORES)
    assert len(seen) == 4
    assert (facts["steps"], facts["best_step"], facts["validation_score"]) == (12, 6, 0.5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, seen[1][name], rtol=0, atol=0)
    assert any(not torch.equal(v, seen[3][k]) for k, v in model.state_dict().items())


def test_without_patience_all_epochs_are_trained_and_nothing_is_scored(fit):
    facts, _, seen = fit("all", SCORES, patience=None)
    assert not seen and facts["steps"] > 12 and "validation_score" not in facts


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_killed_it_ends_with_the_same_bytes(fit, killed: int):
    facts, model, _ = fit("whole", SCORES)
    with pytest.raises(KeyboardInterrupt):
        fit("killed", SCORES, killed=killed)
    again, other, _ = fit("killed", SCORES[killed:])
    assert again == facts and read_json(Path("killed.json")) == read_json(Path("whole.json"))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("window", ["_load_best_model", "_finalize_training"])
def test_killed_after_it_had_stopped_it_does_not_begin_again(
    fit, window: str, monkeypatch: pytest.MonkeyPatch
):
    facts, model, _ = fit("whole", SCORES)

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training.AnswerTrainer, window, kill)
        fit("killed", SCORES)
    for _ in range(2):  # the second time what was written is lost, and the checkpoints are still there
        again, other, seen = fit("killed", [1.0])
        assert not seen and again == facts and read_json(Path("killed.json")) == read_json(Path("whole.json"))
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_checkpoint_that_is_not_whole_is_not_gone_on_from(fit):
    facts, model, _ = fit("whole", SCORES)
    with pytest.raises(KeyboardInterrupt):
        fit("killed", SCORES, killed=3)
    (folder,) = {p.parent for p in Path(".resume").glob("*/checkpoint-9")} - {
        p.parent for p in Path(".resume").glob("*/checkpoint-12")
    }
    (folder / "checkpoint-12").mkdir()  # its first file was not written yet
    again, other, _ = fit("killed", SCORES[3:])
    assert again == facts and all(
        torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items()
    )


def test_the_score_is_that_of_the_answers_to_the_validation_set(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project)
    tokenizer = load_tokenizer(Path("models/teacher"))
    records = read_records(TASK / "validation.jsonl", answered=True)
    said = {i: r.answer for i, r in enumerate(records)} | {0: "no such answer"}

    class Said:
        def __init__(self, text: str) -> None:
            self.text = text

    monkeypatch.setattr(
        "slm.training.early_stopping.generate", lambda *_: [(i, Said(text)) for i, text in said.items()]
    )
    model = load_model(Path("models/teacher"), load_params())
    scorer = validation_scorer(tokenizer, load_task(), records)
    assert scorer(model) == pytest.approx(1 - 1 / len(records))
    # Where memory is short fewer are asked at once; here it is refused, since not even one fits.
    monkeypatch.setattr("slm.modeling.memory.free_bytes", lambda _: 0)
    with pytest.raises(UserError, match="an answer to a prompt of"):
        scorer(model)


def test_the_stage_keeps_what_the_score_chose(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from pipeline.distill import main
    from slm.config.edit import rewrite

    monkeypatch.chdir(project)
    monkeypatch.setenv("CI", "true")
    rewrite({"distill": {"patience": 1, "save_steps": 2, "epochs": 2}})
    # A tokenizer that cannot write one of the teacher's answers
    written, answers = Path("models/teacher/tokenizer.json"), Path("data/synthetic.jsonl")
    write_text(written, without_bytes(written.read_text(encoding="utf-8")))
    rows = read_jsonl(answers)
    rows[0]["messages"][-1]["content"] = LOSSY
    write_jsonl(answers, rows)
    main()
    facts = read_json(Path("reports/distill.json"))
    # this random model's score is 0 from the first time on: no better, so it ends
    assert facts["best_step"] == 2 < facts["steps"] == 4
    assert facts["validation_score"] == 0 and facts["left_out"] == 1
    assert "1 of 13 answers are left out" in capsys.readouterr().err
    assert [row["step"] for row in read_json(Path("reports/curves/distill.json"))] == [1, 2, 3, 4]
