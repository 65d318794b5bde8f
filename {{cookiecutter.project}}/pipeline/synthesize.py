"""The teacher's answers to unlabelled prompts, yours and its own, with provenance and, from a local teacher,
its top-k log-probabilities.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slm.config.params import Params, load_params
from slm.files import folder_sha256, replacing, sha256_json, write_jsonl
from slm.progress import print_closing_line, track
from slm.stage import stage
from slm.task.definition import Task, load_task
from slm.task.records import TASK, Record, read_records
from slm.teacher.filters import Sieve
from slm.teacher.store import Store

TEACHER = Path("models/teacher")
RECORDS = Path("data/synthetic.jsonl")
LOGPROBS = Path("data/logprobs.npz")
INVENTED = Path("data/invented.jsonl")
# What an endpoint says of an answer, and we of several: kept with the record that it made.
KNOWN = ("model", "parameters", "request_id", "usage", "usd", "answers", "agreement", "rationale")


def ask_local(
    records: list[Record], provenance: dict[str, Any], params: Params, store: Store
) -> Iterator[dict[str, Any] | None]:
    """The local teacher's answers, without outer blanks. Their text else stays as it is: its
    log-probabilities belong to these very tokens, and go unused where blanks went.
    """
    from slm.inference.engine import answer_all
    from slm.modeling.checkpoints import load_tokenizer
    from slm.modeling.encoding import encode_prompt  # imports of seconds that an endpoint does not need

    settings = params.synthesize
    tokenizer = load_tokenizer(TEACHER)
    prompts = [encode_prompt(tokenizer, r.prompt) for r in records]
    keys = [sha256_json([provenance, settings.top_k, ids]) for ids in prompts]
    missing = [i for i, key in enumerate(keys) if store.get(key) is None]
    if missing:
        asked = [prompts[i] for i in missing]
        answers = answer_all(
            TEACHER, tokenizer, asked, params, settings.batch_size, settings.max_new_tokens, settings.top_k
        )
        batch = {}
        for i, answer in track(answers, "answers", total=len(missing)):
            batch[keys[missing[i]]] = vars(answer)
            # Whole batches only: a resumed run then cuts the same batches, if it has the memory for them, and
            # their sums round alike.
            if len(batch) == settings.batch_size:
                store.put(batch)
                batch = {}
        store.put(batch)
    given = (store.get(key) for key in keys)
    return (answer and answer | {"text": answer["text"].strip()} for answer in given)


def tags_of(invented: dict[str, Any]) -> list[str]:
    """The tag whose weakness a new prompt was written for."""
    kind, _, name = invented["provenance"].get("slice", "").partition(":")
    return [name] if kind == "tag" else []


class Source:
    """Who answers, and where the answers come from.

    prompts: those that are to be answered; invented: what the teacher wrote itself, kept or not.
    provenance: what all records have in common.
    """

    def __init__(self, params: Params, task: Task, store: Store, held_out: list[tuple[str, Record]]) -> None:
        settings = params.synthesize
        self.prompts = read_records(TASK / "prompts.jsonl", answered=False)[: settings.prompts]
        self.invented: list[dict[str, Any]] = []
        self._rounds: Any = None
        self.answers: Iterable[tuple[dict[str, Any] | None, str]]
        if settings.teacher == "local":
            facts = {"folder_sha256": folder_sha256(TEACHER), "max_new_tokens": settings.max_new_tokens}
            asked = {"teacher": "local"} | facts
            given = ask_local(self.prompts, asked, params, store)
            self.answers = zip(given, itertools.repeat(""), strict=False)
            licence: str | None = params.models.license
        else:
            from slm.teacher.synthesis import Rounds  # again an import of seconds

            endpoint = settings.endpoint
            asked = {"teacher": "endpoint", "base_url": endpoint.base_url, "model": endpoint.model}
            self._rounds = Rounds(task, settings, store)
            if any(settings.generate.model_dump().values()):
                judge = Sieve(task, settings.filters, settings.max_new_tokens, held_out)
                labelled = read_records(TASK / "train.jsonl", answered=True)
                self.invented = self._rounds.invent(labelled, self.prompts, judge)
                new = [row for row in self.invented if row["dropped"] is None]
                self.prompts += [Record(row["id"], row["messages"], tags_of(row)) for row in new]
            self.answers = self._rounds.answer(self.prompts)
            licence = endpoint.license
        self.provenance = asked | {"recipe": "answer", "license": licence}

    def verify(self, rows: list[dict[str, Any]]) -> None:
        """Ask an endpoint teacher whether its answers are right; what it calls wrong is dropped, in place."""
        left = [row for row in rows if row["dropped"] is None]
        verdicts = self._rounds.verify([Record(row["id"], row["messages"]) for row in left])
        for row, (doubt, verdict) in zip(left, verdicts, strict=True):
            row["dropped"] = doubt
            row["provenance"]["verdict"] = verdict


def record_of(prompt: Record, answer: dict[str, Any], dropped: str | None, provenance: dict[str, Any]) -> Any:
    """A row of data/synthetic.jsonl."""
    known = {name: answer[name] for name in KNOWN if name in answer}
    return {
        "id": f"synthetic-{prompt.id}",
        "messages": [*prompt.prompt, {"role": "assistant", "content": answer.get("text", "")}],
        "tags": prompt.tags,
        "dropped": dropped,
        "provenance": provenance | {"prompt": prompt.id, "request_id": None, "usage": None} | known,
    }


def write_logprobs(answers: list[dict[str, Any]], k: int) -> None:
    """The teacher's k likeliest tokens at each step, all answers in a row, and how many steps each has."""
    ids = [step for answer in answers for step in answer.get("topk_ids", [])]
    logprobs = [step for answer in answers for step in answer.get("topk_logprobs", [])]
    lengths = [len(answer.get("topk_ids", [])) for answer in answers]
    with replacing(LOGPROBS.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            ids=np.array(ids, dtype=np.int32).reshape(-1, k),
            logprobs=np.array(logprobs, dtype=np.float16).reshape(-1, k),
            lengths=np.array(lengths, dtype=np.int32),
        )


@stage
def main() -> None:
    params, task = load_params(), load_task()
    settings = params.synthesize
    held_out = [
        (f"{TASK}/{s}.jsonl:{r.line}", r)
        for s in ("validation", "test")
        for r in read_records(TASK / f"{s}.jsonl", answered=True)
    ]

    # Ask the teacher; what it has answered before comes from the store.
    store = Store()
    source = Source(params, task, store, held_out)

    # Filter the answers, each with its reason.
    sieve = Sieve(task, settings.filters, settings.max_new_tokens, held_out)
    origins = {row["id"]: {"invented": row["provenance"]} for row in source.invented}
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for prompt, (given, why) in zip(source.prompts, source.answers, strict=True):
        answer = given or {}
        dropped = sieve.reason(prompt, given, answer.get("text", ""), why)
        row = record_of(prompt, answer, dropped, source.provenance)
        row["provenance"] |= origins.get(prompt.id, {})
        rows.append(row)
        answers.append({name: answer[name] for name in ("topk_ids", "topk_logprobs") if name in answer})
    if settings.filters.verify:
        source.verify(rows)
    store.close()

    # Write records, invented prompts and log-probabilities.
    write_jsonl(RECORDS, rows)
    write_jsonl(INVENTED, source.invented)
    write_logprobs(answers, settings.top_k)
    kept = sum(row["dropped"] is None for row in rows)
    print_closing_line("synthesize", {"records": len(rows), "dropped": len(rows) - kept})


if __name__ == "__main__":
    main()
