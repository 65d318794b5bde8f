"""The teacher's answers to unlabelled prompts, with provenance and, from a local teacher, its top-k log-probabilities."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slm.chat import encode_prompt
from slm.errors import stage
from slm.files import folder_sha256, replacing, sha256_json, write_jsonl
from slm.filters import Sieve, tidied
from slm.generation import generate
from slm.models import load_model, load_tokenizer
from slm.params import Params, load_params
from slm.progress import print_closing_line, track
from slm.records import TASK, Record, read_records
from slm.store import Store
from slm.task import Task, load_task

TEACHER = Path("models/teacher")
RECORDS = Path("data/synthetic.jsonl")
LOGPROBS = Path("data/logprobs.npz")
# Keys of the answers in the store, in the order of the records; the provenance; for the keys without an answer, why.
Asked = tuple[list[str], dict[str, Any], dict[str, str]]


def ask_local(records: list[Record], params: Params, store: Store) -> Asked:
    settings = params.synthesize
    tokenizer = load_tokenizer(TEACHER)
    prompts = [encode_prompt(tokenizer, r.prompt) for r in records]
    provenance = {"teacher": "local", "folder_sha256": folder_sha256(TEACHER), "max_new_tokens": settings.max_new_tokens}
    keys = [sha256_json([provenance, settings.top_k, ids]) for ids in prompts]
    missing = [i for i, key in enumerate(keys) if store.get(key) is None]
    if missing:
        model = load_model(TEACHER, params)
        answers = generate(model, tokenizer, [prompts[i] for i in missing], settings.batch_size, settings.max_new_tokens, settings.top_k)
        batch = {}
        for i, answer in track(answers, "answers", total=len(missing)):
            batch[keys[missing[i]]] = vars(answer)
            # Whole batches only: a resumed run then cuts the same batches, and their sums round alike.
            if len(batch) == settings.batch_size:
                store.put(batch)
                batch = {}
        store.put(batch)
    return keys, provenance, {}


def ask_endpoint(task: Task, records: list[Record], params: Params, store: Store) -> Asked:
    from slm.asking import ask_missing, requests_of  # an import of seconds that a local teacher does not need

    settings = params.synthesize
    requests = requests_of(settings, task, (r.prompt for r in records))
    failures = ask_missing(settings, store, requests)
    provenance = {"teacher": "endpoint", "base_url": settings.endpoint.base_url, "model": settings.endpoint.model}
    return [key for key, _ in requests], provenance, failures


def answers_of(params: Params, store: Store, keys: list[str]) -> Iterator[dict[str, Any] | None]:
    if params.synthesize.teacher == "local":
        return (store.get(key) for key in keys)
    from slm.asking import stored_answers

    return stored_answers(params.synthesize, store, keys)


@stage
def main() -> None:
    params, task = load_params(), load_task()
    prompts = read_records(TASK / "prompts.jsonl", answered=False)[: params.synthesize.prompts]
    held_out = [(f"{TASK}/{s}.jsonl:{r.line}", r) for s in ("validation", "test") for r in read_records(TASK / f"{s}.jsonl", answered=True)]
    store = Store()
    local = params.synthesize.teacher == "local"
    keys, provenance, failures = ask_local(prompts, params, store) if local else ask_endpoint(task, prompts, params, store)

    sieve = Sieve(task, params.synthesize.filters, params.synthesize.max_new_tokens, held_out)
    rows, ids, logprobs, lengths = [], [], [], []
    for prompt, key, answer in zip(prompts, keys, answers_of(params, store, keys), strict=True):
        known = answer or {}
        # The local teacher's text stays as it is: its log-probabilities belong to these very tokens.
        text = known.get("text", "") if local else tidied(task, known.get("text", ""))
        dropped = sieve.reason(prompt, answer, text, failures.get(key, ""))
        paid = {name: known[name] for name in ("model", "request_id", "usage", "usd") if name in known}
        rows.append(
            {
                "id": f"synthetic-{prompt.id}",
                "messages": [*prompt.prompt, {"role": "assistant", "content": text}],
                "dropped": dropped,
                "provenance": provenance | {"prompt": prompt.id, "request_id": None, "usage": None} | paid,
            }
        )
        ids += known.get("topk_ids", [])
        logprobs += known.get("topk_logprobs", [])
        lengths.append(len(known.get("topk_ids", [])))
    store.close()

    write_jsonl(RECORDS, rows)
    k = params.synthesize.top_k
    with replacing(LOGPROBS.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            ids=np.array(ids, dtype=np.int32).reshape(-1, k),
            logprobs=np.array(logprobs, dtype=np.float16).reshape(-1, k),
            lengths=np.array(lengths, dtype=np.int32),
        )
    print_closing_line("synthesize", {"records": len(rows), "dropped": sum(row["dropped"] is not None for row in rows)})


if __name__ == "__main__":
    main()
