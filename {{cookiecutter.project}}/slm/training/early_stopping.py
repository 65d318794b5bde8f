"""Stop training when it no longer helps. The score on validation data decides, not the loss. The best
checkpoint is kept.
"""

from collections.abc import Callable
from typing import Any

from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase

from slm.modeling.encoding import encode_answer, encode_prompt
from slm.modeling.generation import generate
from slm.modeling.memory import rows_to_answer
from slm.task.definition import Task
from slm.task.metrics import score_one
from slm.task.records import Record

BATCH = 64
# times the longest expected answer: what is longer is wrong anyway, and a model at its beginning does not
# stop
TIMES_THE_LONGEST_ANSWER = 2


class EarlyStopping(EarlyStoppingCallback):
    """The library's, but resumed after it had stopped it does not begin again: one step is taken, and not
    looked at.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_log = control.should_evaluate = control.should_save = False


def validation_scorer(
    tokenizer: PreTrainedTokenizerBase, task: Task, records: list[Record]
) -> Callable[[Any], float]:
    """What scores a model while it is trained: the mean score of its answers to these records, in [0, 1].

    records: validation data; never the test set.
    """
    prompts = [encode_prompt(tokenizer, r.prompt) for r in records]
    longest = TIMES_THE_LONGEST_ANSWER * max(len(encode_answer(tokenizer, r.answer)) for r in records)

    def score(model: Any) -> float:
        rows = rows_to_answer(model, max(map(len, prompts)), longest, BATCH)
        answers = dict(generate(model, tokenizer, prompts, rows, longest))
        return sum(score_one(task, r.answer, answers[i].text)["score"] for i, r in enumerate(records)) / len(
            records
        )

    return score
