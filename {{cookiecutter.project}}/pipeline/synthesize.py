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
from slm.task.definition import load_task
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
    """The local teacher's answers. Their text stays as it is: its log-probabilities belong to these very
    tokens.
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
    return (store.get(key) for key in keys)


def tags_of(invented: dict[str, Any]) -> list[str]:
    """The tag whose weakness a new prompt was written for."""
    kind, _, name = invented["provenance"].get("slice", "").partition(":")
    return [name] if kind == "tag" else []


@stage
def main() -> None:
    params, task = load_params(), load_task()
    settings = params.synthesize
    prompts = read_records(TASK / "prompts.jsonl", answered=False)[: settings.prompts]
    held_out = [
        (f"{TASK}/{s}.jsonl:{r.line}", r)
        for s in ("validation", "test")
        for r in read_records(TASK / f"{s}.jsonl", answered=True)
    ]
    invented: list[dict[str, Any]] = []
    answers: Iterable[tuple[dict[str, Any] | None, str]]
    license_name: str | None
    store = Store()
    if settings.teacher == "local":
        license_name = params.models.license
        provenance = {
            "teacher": "local",
            "folder_sha256": folder_sha256(TEACHER),
            "max_new_tokens": settings.max_new_tokens,
        }
        answers = zip(ask_local(prompts, provenance, params, store), itertools.repeat(""), strict=False)
    else:
        from slm.teacher.synthesis import Rounds  # again an import of seconds

        license_name = settings.endpoint.license
        provenance = {
            "teacher": "endpoint",
            "base_url": settings.endpoint.base_url,
            "model": settings.endpoint.model,
        }
        rounds = Rounds(task, settings, store)
        if any(settings.generate.model_dump().values()):
            judge = Sieve(task, settings.filters, settings.max_new_tokens, held_out)
            invented = rounds.invent(read_records(TASK / "train.jsonl", answered=True), prompts, judge)
            prompts += [
                Record(row["id"], row["messages"], tags_of(row)) for row in invented if row["dropped"] is None
            ]
        answers = rounds.answer(prompts)

    sieve = Sieve(task, settings.filters, settings.max_new_tokens, held_out)
    provenance |= {"recipe": "answer", "license": license_name}
    origins = {row["id"]: {"invented": row["provenance"]} for row in invented}
    rows: list[dict[str, Any]] = []
    ids, logprobs, lengths = [], [], []
    for prompt, (answer, why) in zip(prompts, answers, strict=True):
        known = answer or {}
        text = known.get("text", "")
        dropped = sieve.reason(prompt, answer, text, why)
        said = {name: known[name] for name in KNOWN if name in known} | origins.get(prompt.id, {})
        rows.append(
            {
                "id": f"synthetic-{prompt.id}",
                "messages": [*prompt.prompt, {"role": "assistant", "content": text}],
                "tags": prompt.tags,
                "dropped": dropped,
                "provenance": provenance | {"prompt": prompt.id, "request_id": None, "usage": None} | said,
            }
        )
        ids += known.get("topk_ids", [])
        logprobs += known.get("topk_logprobs", [])
        lengths.append(len(known.get("topk_ids", [])))
    if settings.filters.verify:
        left = [row for row in rows if row["dropped"] is None]
        for row, (doubt, verdict) in zip(
            left, rounds.verify([Record(row["id"], row["messages"]) for row in left]), strict=True
        ):
            row["dropped"] = doubt
            row["provenance"]["verdict"] = verdict
    store.close()

    write_jsonl(RECORDS, rows)
    write_jsonl(INVENTED, invented)
    k = settings.top_k
    with replacing(LOGPROBS.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            ids=np.array(ids, dtype=np.int32).reshape(-1, k),
            logprobs=np.array(logprobs, dtype=np.float16).reshape(-1, k),
            lengths=np.array(lengths, dtype=np.int32),
        )
    print_closing_line(
        "synthesize", {"records": len(rows), "dropped": sum(row["dropped"] is not None for row in rows)}
    )


if __name__ == "__main__":
    main()
