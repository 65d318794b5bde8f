"""The rounds of one run with an endpoint teacher: new prompts, answers, verdicts.

The cost of all rounds is stated and approved before the first request of the first round.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from slm.config.synthesis import Synthesize
from slm.task.definition import Task
from slm.task.records import Record
from slm.task.text import normal
from slm.teacher.budget import allowed_tokens, dollars, worst_case
from slm.teacher.client import Request, key_of
from slm.teacher.endpoint import AnswerOrWhy, EndpointTeacher, requests_of
from slm.teacher.filters import Sieve
from slm.teacher.prompt_generation import calls_of, provenance_of, read_requests
from slm.teacher.response import why_silent
from slm.teacher.self_consistency import agreed
from slm.teacher.store import Spent, Store
from slm.teacher.verification import question_of, said_wrong

Keyed = list[tuple[str, Request]]


class Rounds:
    def __init__(self, task: Task, settings: Synthesize, store: Store) -> None:
        self._task, self._settings, self._store = task, settings, store
        self._teacher = EndpointTeacher(settings, task, store)

    def invent(self, labelled: list[Record], prompts: list[Record], sieve: Sieve) -> list[dict[str, Any]]:
        """New prompts as the recipes want them: rows with id, messages, dropped (why it must not be asked, or
        None) and provenance.

        Args:
            labelled: the training examples; a new prompt that is a copy of one, or of one of `prompts`, is
                dropped.
            sieve: judges prompts, and has seen none yet.
        """
        settings, wanted = self._settings.endpoint, self._settings.generate
        calls = calls_of(self._task, wanted, self._settings.slice_scores, labelled)
        requests = [call.request(settings, self._task) for call in calls]
        keyed = [
            (key_of(settings, request, call.number), request)
            for call, request in zip(calls, requests, strict=True)
        ]
        failures = self._teacher.ask(keyed, self._after_inventing(prompts, requests))
        known = [*labelled, *prompts]
        for record in known:
            sieve.remember(record)
        there, names = {normal(r.text) for r in known}, {r.id for r in prompts}
        left = wanted.model_dump()
        rows: list[dict[str, Any]] = []
        replies = self._teacher.replies(key for key, _ in keyed)
        for call, request, (key, _), reply in zip(calls, requests, keyed, replies, strict=True):
            provenance = provenance_of(call, request, reply or {})
            found = read_requests(reply["text"], reply["cut"]) if reply else []
            if not found:
                if reply is None:
                    why = f"unanswered: {failures.get(key, '')}"
                elif reply["text"]:
                    why = f"unreadable: no request in {reply['text'][:60]!r}"
                else:
                    why = f"unreadable: {why_silent(reply)}"
                rows.append({"id": call.id, "messages": [], "dropped": why, "provenance": provenance})
            for i, text in enumerate(found, 1):
                if not left[call.recipe]:
                    break
                name = f"{call.id}-{i}"
                # whoever takes new prompts over into task/prompts.jsonl keeps their names
                while name in names:
                    name += "-new"
                record = Record(name, [{"role": "user", "content": text}])
                # whatever the filters say: an example that is there twice fails `validate`
                same = normal(text) in there
                dropped = (
                    "duplicate: the same words as an earlier request" if same else sieve.prompt_reason(record)
                )
                there.add(normal(text))
                left[call.recipe] -= dropped is None
                rows.append(
                    {
                        "id": record.id,
                        "messages": record.messages,
                        "dropped": dropped,
                        "provenance": provenance,
                    }
                )
        return rows

    def _after_inventing(self, prompts: list[Record], inventions: list[Request]) -> Spent:
        """What answers and verdicts may cost: of the prompts that are there, and of those that are to be
        invented.
        """
        settings = self._settings
        new = [Record("", [{"role": "user", "content": ""}])] * sum(settings.generate.model_dump().values())
        missing = [request for key, request in self._requests(prompts) if not self._store.has(key)]
        answers = [request for _, request in self._requests(new[:1])] * len(new)
        # All new prompts together are no longer than the replies that they come from.
        longest = sum(worst_case(settings, r).tokens_out for r in inventions)
        often = settings.endpoint.answers + settings.filters.verify
        return self._at_worst(
            [*missing, *answers, *self._questions([*prompts, *new])], often * longest, len(prompts) + len(new)
        )

    def _questions(self, prompts: list[Record]) -> list[Request]:
        """Those of the last round, as far as they are known before the answers are."""
        return [
            question_of(self._settings.endpoint, self._task, p.prompt, "")
            for p in prompts
            if self._settings.filters.verify
        ]

    def _at_worst(self, requests: list[Request], more_in: int, answered: int) -> Spent:
        """answered: prompts whose answers are shown again in the last round; quoted as JSON they may take
        twice their tokens.
        """
        settings = self._settings
        costs = [worst_case(settings, request) for request in requests]
        longest = max(settings.max_new_tokens, allowed_tokens(settings, settings.endpoint.extra))
        tokens_in = (
            sum(c.tokens_in for c in costs) + more_in + 2 * longest * answered * settings.filters.verify
        )
        tokens_out = sum(c.tokens_out for c in costs)
        return Spent(
            len(costs), tokens_in + tokens_out, dollars(settings.endpoint, tokens_in, tokens_out) or 0.0
        )

    def _requests(self, prompts: list[Record]) -> Keyed:
        return requests_of(
            self._settings, self._task, (p.prompt for p in prompts), self._settings.endpoint.answers
        )

    def answer(self, prompts: list[Record]) -> Iterator[AnswerOrWhy]:
        """The answer to each prompt; of several the one that most agree on."""
        wanted = self._settings.endpoint.answers
        later = self._at_worst(self._questions(prompts), 0, len(prompts))
        given = self._teacher.answers((p.prompt for p in prompts), wanted, later)
        for _ in prompts:
            several = list(islice(given, wanted))
            if wanted == 1:
                yield several[0]
                continue
            best, share = agreed(
                self._task,
                [(a["text"] or None) if a and not a.get("no_answer") else None for a, _ in several],
            )
            answer, why = several[best]
            yield answer and answer | {"answers": wanted, "agreement": round(share, 4)}, why

    def verify(self, records: list[Record]) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """Of each answered record: why nobody must learn from it, or None; what is known of the verdict."""
        settings = self._settings.endpoint
        requests = [question_of(settings, self._task, r.prompt, r.answer) for r in records]
        keyed = [(key_of(settings, request), request) for request in requests]
        failures = self._teacher.ask(keyed)
        verdicts = self._teacher.replies(key for key, _ in keyed)
        for (key, _), verdict in zip(keyed, verdicts, strict=True):
            known = {name: (verdict or {}).get(name) for name in ("text", "request_id", "usage", "usd")}
            yield said_wrong(verdict, failures.get(key, "")), known
