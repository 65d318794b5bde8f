"""What an endpoint teacher is asked in one run, round after round, through the store: nothing that it has answered is asked again."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from slm.agreement import agreed
from slm.asking import ask_missing, requests_of, stored_answers
from slm.filters import tidied
from slm.params import Synthesize
from slm.records import Record
from slm.store import Store
from slm.task import Task

# Of each prompt: the answer to keep with what is known of it, None if there is none; and then why.
Answers = Iterator[tuple[dict[str, Any] | None, str]]


class Rounds:
    def __init__(self, task: Task, settings: Synthesize, store: Store) -> None:
        self._task, self._settings, self._store = task, settings, store

    def answer(self, prompts: list[Record]) -> Answers:
        """The teacher's answers, in the form that the labelled ones have. Of several to one prompt: the one that most agree on."""
        wanted = self._settings.endpoint.answers
        requests = requests_of(self._settings, self._task, (p.prompt for p in prompts), wanted)
        failures = ask_missing(self._settings, self._store, requests)
        keys = [key for key, _ in requests]
        given = stored_answers(self._settings, self._store, keys)
        for start in range(0, len(keys), wanted):
            answers = [a and a | {"text": tidied(self._task, a["text"])} for a in islice(given, wanted)]
            best, share = agreed(self._task, [a["text"] if a else None for a in answers]) if wanted > 1 else (0, 1.0)
            answer = answers[best]
            if answer and wanted > 1:
                answer |= {"answers": wanted, "agreement": round(share, 4)}
            yield answer, failures.get(keys[start + best], "")
