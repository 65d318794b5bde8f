"""The example tasks: what is in them, that the data checks take them and refuse a planted fault, and (full) the whole pipeline with each."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from benchmarks.planted.data import answered
from benchmarks.planted.world import must, read_jsonl, run, write_jsonl
from tests.bake import TEMPLATE
from tests.conftest import read_json
from tests.examples import EXAMPLES, KINDS, gate, made, with_task

SPLITS = {"train": 60, "validation": 20, "test": 40, "prompts": 20}
# The figure beside the score (or the score itself, where there is none) that a gate can name.
FIGURES = {
    "classification": "macro_f1",
    "conversation": "rouge_l",
    "extraction": "exact_match",
    "generation": "rouge_l",
    "question-answering": "exact_match",
    "reasoning": "score",
    "summarization": "chrf",
}
# What the labels score against themselves, and against those of other records: a scorer that cannot fail is none.
SCORE = """
from pathlib import Path
from slm.task.records import read_records
from slm.task.metrics import summarise
from slm.task.definition import load_task
import json
task, said = load_task(), []
for split in ("train", "validation", "test"):
    answers = [r.answer for r in read_records(Path("task") / f"{split}.jsonl", True)]
    half = len(answers) // 2
    others = answers[half:] + answers[:half]
    said += [summarise(task, [{"expected": a, "answer": b, "tags": []} for a, b in zip(answers, given)]) for given in (answers, others)]
print(json.dumps([[f["score"], f["valid_rate"]] for f in said]))
"""
Row = dict[str, Any]


def rows_of(kind: str, split: str) -> list[Row]:
    return read_jsonl(EXAMPLES / kind / f"{split}.jsonl")


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_whole_and_its_records_are_its_own(kind: str):
    assert {p.relative_to(EXAMPLES / kind).as_posix() for p in (EXAMPLES / kind).rglob("*") if p.is_file()} == {
        "README.md",
        "task.yaml",
        *(f"{split}.jsonl" for split in SPLITS),
        *(f"expectations/{suite}.json" for suite in ("labelled", "prompts", "synthetic")),
    }
    assert len((EXAMPLES / kind / "README.md").read_text(encoding="utf-8").split()) < 100
    splits = {split: rows_of(kind, split) for split in SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == SPLITS
    asked = [json.dumps(r["messages"][: -1 if name != "prompts" else None]) for name, rows in splits.items() for r in rows]
    assert len(set(asked)) == len(asked)
    text = (TEMPLATE / "{{cookiecutter.project}}" / "docs" / "your-own-task.md").read_text(encoding="utf-8")
    assert f"`examples/{kind}`" in text
    assert YAML(typ="safe").load((EXAMPLES / kind / "task.yaml").read_text(encoding="utf-8"))["license"] == "CC0-1.0"


def test_the_classes_are_balanced():
    for split in ("train", "validation", "test"):
        counts = Counter(r["messages"][-1]["content"] for r in rows_of("classification", split))
        assert len(counts) == 5 and len(set(counts.values())) == 1


def test_conversations_have_several_turns():
    turns = [len(r["messages"]) for r in rows_of("conversation", "test")]
    assert sum(n > 2 for n in turns) > len(turns) / 3 and max(turns) >= 6


def relabelled(answer: Any) -> Callable[[Path], None]:
    """A plant: the first training example gets another answer."""

    def plant(task: Path) -> None:
        first, *rest = read_jsonl(task / "train.jsonl")
        write_jsonl(task / "train.jsonl", [answered(first, answer), *rest])

    return plant


def leaked(task: Path) -> None:
    """A plant: a test example is trained on, with a word more at its end."""
    stolen = read_jsonl(task / "test.jsonl")[-1]
    stolen["messages"][-2]["content"] += " thanks"
    write_jsonl(task / "train.jsonl", [*read_jsonl(task / "train.jsonl"), stolen | {"id": "train-999"}])


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "classification": (relabelled("shipping"), "'shipping' is none of the labels"),
    "conversation": (leaked, "expect_column_values_to_be_null(leak)"),
    "extraction": (relabelled({"vendor": "Autohaus Brenner", "total": 318.4, "currency": "Euro"}), "currency: 'Euro' is not one of"),
    "generation": (relabelled("A chair."), "expect_column_values_to_be_between(answer_characters"),
    "question-answering": (relabelled("crimson"), "'crimson' does not stand in the passage, word for word"),
    "reasoning": (relabelled("3 x 1.20 = 3.60, 10 - 3.60 = 6.40."), "no final answer"),
    "summarization": (leaked, "expect_column_values_to_be_null(leak)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_checks_take_an_example_and_refuse_a_planted_fault(kind: str, project: Path, tmp_path: Path):
    folder = with_task(kind, tmp_path / kind, project)
    must(folder, "python", "-m", "pipeline.check")
    for i, (score, valid) in enumerate(json.loads(must(folder, "python", "-c", SCORE).splitlines()[-1])):
        assert valid == 1 and (score == 1 if i % 2 == 0 else score < 0.7)
    plant, message = FAULTS[kind]
    plant(folder / "task")
    done = run(folder, "python", "-m", "pipeline.check")
    assert done.code == 2 and message in done.log, done.log


def chat_keeps_what_was_said(folder: Path) -> None:
    """The second reply is the one that the package gives to both lines and its own first reply."""
    lines = ("A table for two on Friday, please.", "At seven.")
    command = [str(folder / ".venv" / "bin" / "python"), "-m", "slm", "chat"]
    done = subprocess.run(command, cwd=folder, input="\n".join(lines) + "\n\n", capture_output=True, text=True, check=True)
    code = (
        "import sys; from slm.inference.genai import GenAI; model, said = GenAI(sys.argv[1]), []\n"
        "for line in sys.argv[2:]:\n"
        "    said.append({'role': 'user', 'content': line})\n"
        "    said.append({'role': 'assistant', 'content': model.ask(model.encode(said), 96).text})\n"
        "print(said[-1]['content'])"
    )
    expected = must(folder, "python", "-c", code, f"dist/{folder.name}/model", *lines).strip()
    assert f"> {expected}   [" in done.stdout


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_pipeline_runs_with_an_example(kind: str, project: Path, tmp_path: Path):
    """From its labels to a package and a verdict, on a stub of a model: what it scores says nothing, that each figure is there and judged does."""
    folder = made(kind, tmp_path / kind, project)
    assert len(read_jsonl(folder / "predictions" / "int4.jsonl")) == 1 + SPLITS["test"]
    done = gate(folder, FIGURES[kind], floor=0)
    assert done.code == 0, done.log
    assert gate(folder, FIGURES[kind], floor=1).code == 1
    gates = {g["name"]: g for g in read_json(folder / "reports" / "verdict.json")["gates"]}
    assert gates["own figure"]["passed"] is False and 0 <= gates["own figure"]["value"] < 1
    must(folder, "python", "-m", "slm", "report")
    if kind == "conversation":
        chat_keeps_what_was_said(folder)
    card = (folder / "dist" / kind / "README.md").read_text(encoding="utf-8")
    assert "Asked through Foundry Local" in card
