"""Talk to the shipped model in the terminal."""

from pathlib import Path

from slm.config.params import load_params
from slm.errors import UserError
from slm.inference.genai import GenAI
from slm.task.definition import load_task
from slm.task.records import TASK, read_records
from slm.task.strict import Unreadable, composed, plain_message


def chat() -> None:
    params, task = load_params(), load_task()
    folder = Path("dist") / params.package.name / "model"
    if not folder.exists():
        raise UserError(f"{folder}: no package yet; run `slm repro` first")
    model = GenAI(folder)
    # A model that was taught single requests knows nothing of earlier ones.
    converses = any(len(r.prompt) > 1 for r in read_records(TASK / "train.jsonl", answered=True))
    said: list[dict[str, str]] = []
    print(f"{task.name}, {params.package.variant}. An empty line ends.")
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            text = ""
        if not text:
            print()
            return
        try:
            messages = [*said, plain_message({"role": "user", "content": composed(text)})]
        except Unreadable as fault:
            print(f"{fault.what}; {fault.remedy}")
            continue
        ids = model.encode(messages)
        left = model.context - len(ids)
        if left < 1:
            print(
                f"{len(ids)} tokens leave no room for an answer in a context of {model.context}; say less, "
                "from the start"
            )
            said = []
            continue
        reply = model.ask(ids, min(params.evaluate.max_new_tokens, left))
        if converses:
            said = [*messages, {"role": "assistant", "content": reply.text}]
        cut = "" if not reply.cut else ", cut off"
        print(f"{reply.text}   [{reply.request_ms:.0f} ms, first token {reply.ttft_ms:.0f} ms{cut}]")
