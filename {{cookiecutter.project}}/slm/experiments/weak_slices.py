"""Find where the last student is weakest on validation data. `synthesize.generate.weak_slices` chooses its
seeds by these scores.

    slm weak-slices      asks the variant that ships the validation set (about a minute), and writes its score
                         by class and tag into params.yaml (synthesize.slice_scores)

The test set does not decide what a student learns. A student cannot be an input of the stage that makes it.
So its scores are a parameter. You see them and commit them, and they change only when you say so.
"""

from pathlib import Path
from typing import Any

from slm.config.edit import edit
from slm.config.params import PARAMS, load_params
from slm.errors import UserError
from slm.inference.asking import ask_singly
from slm.progress import track
from slm.task.definition import load_task
from slm.task.metrics import summarise
from slm.task.records import TASK, prediction, read_records

SMALLEST = 8  # examples of a slice: below that its score says little


def worst_first(facts: dict[str, Any]) -> dict[str, float]:
    """Scores by slice, out of a rung's facts."""
    scores = {name: s["score"] for name, s in facts["slices"].items() if s["n"] >= SMALLEST}
    return dict(sorted(scores.items(), key=lambda item: (item[1], item[0])))


def write_weak_slices() -> None:
    params, task = load_params(), load_task()
    folder = Path("models") / params.package.variant
    if not folder.exists():
        raise UserError(f"{folder}: no model; run `slm repro` first (or `slm pull`)")
    records = read_records(TASK / "validation.jsonl", answered=True)
    replies = ask_singly(folder, [r.prompt for r in records], params.evaluate.max_new_tokens)
    predictions = [
        prediction(records[i], reply.text, reply.cut)
        for i, reply in track(replies, "validation", total=len(records))
    ]
    scores = {name: round(score, 3) for name, score in worst_first(summarise(task, predictions)).items()}
    edit(lambda written: written["synthesize"].update(slice_scores=scores))
    for name, score in scores.items():
        print(f"{score:.3f}  {name}")
    print(f"{PARAMS}: synthesize.slice_scores holds these now; `git diff` shows what changed")
