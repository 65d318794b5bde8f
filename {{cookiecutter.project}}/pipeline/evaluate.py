"""One rung asks the test set: predictions, and the facts of their quality.

python -m pipeline.evaluate int4 models/int4

What ships needs neither Transformers nor an endpoint's client, whose imports take seconds: each way to ask
brings its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm.config.params import Params, Rung, load_params
from slm.errors import UserError
from slm.files import folder_sha256, sha256_file, weights_sha256, write_json, write_jsonl
from slm.inference.asking import ask_singly
from slm.inference.genai import GenAI
from slm.progress import print_closing_line, track
from slm.stage import stage
from slm.task.definition import Task, load_task
from slm.task.metrics import summarise
from slm.task.records import TASK, Record, fixed_sample, prediction, read_records

TEST = TASK / "test.jsonl"
BASE = Path("models/base")


def by_transformers(
    folder: Path, prompts: list[list[dict[str, str]]], params: Params
) -> Iterator[tuple[int, str, bool]]:
    from slm.inference.engine import answer_all
    from slm.modeling.checkpoints import load_tokenizer
    from slm.modeling.encoding import encode_prompt, keep_contents_plain

    tokenizer = load_tokenizer(folder)
    if folder == BASE:  # taught models have such a template already
        keep_contents_plain(tokenizer)
    ids = [encode_prompt(tokenizer, messages) for messages in prompts]
    for i, answer in answer_all(
        folder, tokenizer, ids, params, params.evaluate.batch_size, params.evaluate.max_new_tokens
    ):
        yield i, answer.text, answer.cut


def by_genai(
    rung: str, folder: Path, prompts: list[list[dict[str, str]]], params: Params
) -> Iterator[tuple[int, str, bool]]:
    limit = params.evaluate.max_new_tokens
    if rung == "onnx":  # fp32 rounds alike in batches, which are quicker
        runtime = GenAI(folder)
        replies = runtime.ask_all(
            [runtime.encode(messages) for messages in prompts], params.evaluate.batch_size, limit
        )
    else:
        replies = ask_singly(folder, prompts, limit)
    for i, reply in replies:
        yield i, reply.text, reply.cut


def by_endpoint(
    task: Task, prompts: list[list[dict[str, str]]], params: Params
) -> Iterator[tuple[int, str, bool]]:
    from slm.task.answers import tidied
    from slm.teacher.endpoint import EndpointTeacher
    from slm.teacher.store import Store

    store = Store()
    answers = list(EndpointTeacher(params.synthesize, task, store).answers(prompts))
    store.close()
    failures = [why for answer, why in answers if answer is None]
    if failures:  # a score over the rest would flatter
        raise UserError(
            f"{len(failures)} of {len(prompts)} test examples got no answer, one because: {failures[0]}; "
            "run again, answers are kept"
        )
    for i, (answer, _) in enumerate(answers):
        assert answer is not None
        # where the teacher did not keep its reasoning apart, all of what it said is judged
        yield i, tidied(task, answer["text"]) if answer.get("no_answer") else answer["text"], answer["cut"]


def perplexity_of(folder: Path, records: list[Record], params: Params) -> float:
    from slm.modeling.checkpoints import load_model, load_tokenizer
    from slm.modeling.encoding import encode_example
    from slm.modeling.generation import perplexity

    tokenizer, model = load_tokenizer(folder), load_model(folder, params)
    examples = [encode_example(tokenizer, r) for r in records]
    return perplexity(model, examples, tokenizer.pad_token_id, params.evaluate.batch_size)


@stage
def main(rung: Rung, folder_name: str) -> None:
    params, task, folder = load_params(), load_task(), Path(folder_name)

    # Choose the test examples
    records: list[Record] = fixed_sample(
        read_records(TEST, answered=True), params.evaluate.sample[rung], params.seed
    )
    prompts = [r.prompt for r in records]

    # Ask the model
    endpoint = (folder / "endpoint.json").exists()
    if endpoint:
        answers = by_endpoint(task, prompts, params)
    elif (folder / "genai_config.json").exists():
        answers = by_genai(rung, folder, prompts, params)
    else:
        if rung == "base":  # untaught: it must be told
            prompts = [[{"role": "system", "content": task.instruction}, *messages] for messages in prompts]
        answers = by_transformers(folder, prompts, params)
    given = {i: (text, cut) for i, text, cut in track(answers, rung, total=len(prompts))}

    # Write the predictions, with the hashes of the bytes that gave them: the gate refuses others
    hashes: dict[str, Any] = {
        "weights_sha256": None if endpoint else weights_sha256(folder),
        "folder_sha256": None if endpoint else folder_sha256(folder),
        "test_sha256": sha256_file(TEST),
    }
    predictions = [prediction(r, *given[i]) for i, r in enumerate(records)]
    write_jsonl(Path("predictions") / f"{rung}.jsonl", [{"rung": rung, **hashes}, *predictions])

    # Score them
    facts = {
        "rung": rung,
        **hashes,
        "cut": sum(p["cut"] for p in predictions),
        **summarise(task, predictions),
    }
    if task.kind == "text" and not endpoint and not (folder / "genai_config.json").exists():
        facts["perplexity"] = perplexity_of(folder, records, params)
    write_json(Path("reports/quality") / f"{rung}.json", facts)
    print_closing_line(
        "evaluate", {"rung": rung, "n": facts["n"], "score": facts["score"], "cut": facts["cut"]}
    )


if __name__ == "__main__":
    main()
