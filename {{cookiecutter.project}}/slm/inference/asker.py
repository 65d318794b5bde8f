"""Ask one model what comes in, line by line: a process of its own, which `slm.inference.asking` starts.

    python -m slm.inference.asker FOLDER --threads 1 --max-new-tokens 72

Says {"ready": true} once the model is loaded. Then, for each line {"id": 0, "messages": […]}, one line with
the answer, its tokens and times, and the peak of memory so far. What cannot be asked gives an `error`.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.inference.genai import GenAI


def peak_rss_mb() -> float:
    """Peak resident memory of this process, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts in bytes


def answer(runtime: GenAI, messages: list[dict[str, str]], max_new_tokens: int) -> dict[str, Any]:
    try:
        ids = runtime.encode(messages)
        reply = runtime.ask(ids, max_new_tokens)
    except UserError as error:
        return {"error": str(error)}
    return {"prompt_tokens": len(ids), **vars(reply)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-new-tokens", type=int, required=True)
    arguments = parser.parse_args()

    # What a library prints goes to stderr: stdout is for the answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    before = peak_rss_mb()  # only the runtime is imported
    runtime = GenAI(arguments.folder, arguments.threads)
    say({"ready": True})
    for line in sys.stdin.buffer:
        question = json.loads(line)
        found = answer(runtime, question["messages"], arguments.max_new_tokens)
        say({"id": question["id"], **found, "rss_mb": peak_rss_mb() - before})


if __name__ == "__main__":
    main()
