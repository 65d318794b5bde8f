"""The teacher's answers to unlabelled prompts, with provenance and, from a local teacher, its top-k log-probabilities."""

from pathlib import Path
from typing import Any

import numpy as np

from slm.chat import encode_prompt
from slm.errors import stage
from slm.files import RESUME, folder_sha256, replacing, sha256_json, write_jsonl
from slm.generation import generate
from slm.models import load_model, load_tokenizer
from slm.params import Params, load_params
from slm.progress import print_closing_line, track
from slm.quality import schema_error
from slm.records import TASK, Record, read_records
from slm.store import Store
from slm.task import Task, load_task

TEACHER = Path("models/teacher")
RECORDS = Path("data/synthetic.jsonl")
LOGPROBS = Path("data/logprobs.npz")


def ask_local(records: list[Record], params: Params, store: Store) -> tuple[list[str], dict[str, Any]]:
    """Keys of the answers in the store, in the order of the records, and the provenance."""
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
    return keys, provenance


def ask_endpoint(task: Task, records: list[Record], params: Params, store: Store) -> tuple[list[str], dict[str, Any]]:
    from slm.endpoint import ask_all, request_of  # an import of seconds that a local teacher does not need

    settings = params.synthesize
    requests = [request_of(settings, [{"role": "system", "content": task.instruction}, *r.prompt]) for r in records]
    keys = [sha256_json([settings.endpoint.base_url, request]) for request in requests]
    missing = {key: request for key, request in zip(keys, requests, strict=True) if store.get(key) is None}
    if missing:
        for key, answer in track(ask_all(settings, missing), "answers", total=len(missing)):
            store.put({key: answer})
    return keys, {"teacher": "endpoint", "base_url": settings.endpoint.base_url, "model": settings.endpoint.model}


def dropped(task: Task, answer: dict[str, Any], limit: int) -> str | None:
    """Why a student must not learn from this answer; None if it may."""
    if answer["cut"]:
        return f"cut off after {limit} tokens (synthesize.max_new_tokens): {answer['text'][:60]}"
    return schema_error(task, answer["text"])


@stage
def main() -> None:
    params, task = load_params(), load_task()
    prompts = read_records(TASK / "prompts.jsonl", answered=False)[: params.synthesize.prompts]
    store = Store(RESUME / "answers.sqlite")
    if params.synthesize.teacher == "local":
        keys, provenance = ask_local(prompts, params, store)
    else:
        keys, provenance = ask_endpoint(task, prompts, params, store)

    rows, ids, logprobs, lengths = [], [], [], []
    for prompt, key in zip(prompts, keys, strict=True):
        answer = store.get(key)
        rows.append(
            {
                "id": f"synthetic-{prompt.id}",
                "messages": [*prompt.prompt, {"role": "assistant", "content": answer["text"]}],
                "dropped": dropped(task, answer, params.synthesize.max_new_tokens),
                "provenance": provenance | {"prompt": prompt.id, "request_id": answer.get("request_id"), "usage": answer.get("usage")},
            }
        )
        ids += answer.get("topk_ids", [])
        logprobs += answer.get("topk_logprobs", [])
        lengths.append(len(answer.get("topk_ids", [])))
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
