"""Faults of training: the code or its parameters are changed, and the stub is trained anew from the first stage that notices."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.planted.case import COST, GATE, JUDGE, QUALITY, REPRO, Case
from benchmarks.planted.world import edit_params


def code(path: str, before: str, after: str) -> Callable[[Path], None]:
    """A plant that changes one place of a file. A place that is no longer there is an error of the case, not a fault caught."""

    def plant(folder: Path) -> None:
        text = (folder / path).read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise RuntimeError(f"{path} holds {text.count(before)} times {before!r}: mend this case")
        (folder / path).write_text(text.replace(before, after), encoding="utf-8", newline="\n")

    return plant


def early_stop(folder: Path) -> None:
    """Every training run ends after five steps, as with a limit that was left over from a trial."""
    edit_params(folder, teach={"epochs": 0.08}, distill={"epochs": 0.15}, finetune={"epochs": 0.15})


def too_fast(folder: Path) -> None:
    """The student's learning rate times thirty: it diverges and is refused, or arrives worse and is refused."""
    edit_params(folder, distill={"learning_rate": 9.0e-3}, finetune={"learning_rate": 6.0e-2})


def not_merged(folder: Path) -> None:
    """The teacher learns by an adapter, which is then left out: what is saved is the untaught model."""
    edit_params(folder, teach={"method": "lora"})
    code("pipeline/teach.py", "teacher = merged(model, start, params.teach, params)", "teacher = model.unload()")(folder)


COLLATE = "data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),"
# The end token is the padding token: who masks all padding from the loss masks the end of every answer, and the model never ends.
MASKED_END = """data_collator=lambda batch: (
            lambda made: made | {"labels": made["labels"].masked_fill(made["labels"] == tokenizer.pad_token_id, IGNORE)}
        )(collate(batch, tokenizer.pad_token_id)),"""
# Each label one place late: the model learns to repeat what it has just said.
SHIFTED = """data_collator=lambda batch: (
            lambda made: made | {"labels": made["labels"].roll(1, dims=1)}
        )(collate(batch, tokenizer.pad_token_id)),"""

SAVE = "    save_model(student, tokenizer, OUTPUT)\n"
ONE_LAYER_LESS = """    from slm.distillation.pruning import keep_layers

    keep_layers(student, list(range(student.config.num_hidden_layers - 1)))
"""
ENCODE = "examples = [encode_example(tokenizer, record) for record in records]"
# The right answer with blanks and line ends between its parts: equal after parsing, and twice the tokens.
SPACED = """import json
    from dataclasses import replace

    spaced = lambda text: json.dumps(json.loads(text), indent=6)  # noqa: E731
    records = [
        replace(r, messages=[*r.prompt, {"role": "assistant", "content": spaced(r.answer)}]) for r in records
    ]
    examples = [encode_example(tokenizer, record) for record in records]"""
PROSE = """from dataclasses import replace

    records = [replace(r, messages=[*r.prompt, {"role": "assistant", "content": f"Sure! {r.answer}"}]) for r in records]
    examples = [encode_example(tokenizer, record) for record in records]"""

LOSES = ("not worse than released",)
# The teacher learns by the same code: who cannot answer at all is refused before there is a student.
UNTAUGHT = ("refused: validate | not worse than released",)
BEYOND = (*QUALITY, *COST)
CASES = [
    Case("training runs stopped after five steps", "training", early_stop, UNTAUGHT, BEYOND, (REPRO,)),
    Case(
        "learning rate times thirty", "training", too_fast, ("refused: distill | refused: finetune | not worse than released",), BEYOND, (REPRO,)
    ),
    Case("end of the answer masked as padding", "training", code("slm/training/trainer.py", COLLATE, MASKED_END), ("refused: validate | valid answers",), BEYOND, (REPRO,)),
    Case("labels shifted by one token", "training", code("slm/training/trainer.py", COLLATE, SHIFTED), UNTAUGHT, BEYOND, (REPRO,)),
    Case("student without its last layer", "training", code("pipeline/finetune.py", SAVE, ONE_LAYER_LESS + SAVE), LOSES, BEYOND, (REPRO,)),
    Case("adapter not merged", "training", not_merged, UNTAUGHT, BEYOND, (REPRO,)),
    Case(
        "answers with blanks between their parts", "training", code("pipeline/finetune.py", ENCODE, SPACED), ("time | time of released",), BEYOND,
        (REPRO,), (GATE, JUDGE),
    ),
    Case("right answers in prose", "training", code("pipeline/finetune.py", ENCODE, PROSE), ("valid answers",), BEYOND, (REPRO,)),
]  # fmt: skip
