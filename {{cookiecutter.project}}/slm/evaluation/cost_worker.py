"""Time and memory of one model folder, in a process of its own.

    python -m slm.evaluation.cost_worker models/int4 prompts.json --threads 1 --max-new-tokens 72

prompts.json: [[{"role", "content"}, …], …]. The last line of stdout is one JSON document.
"""

import argparse
import json
import sys
from pathlib import Path

from slm.files import read_json
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-new-tokens", type=int, required=True)
    arguments = parser.parse_args()

    before = peak_rss_mb()  # only the runtime is imported
    runtime = GenAI(arguments.folder, arguments.threads)
    prompts = [runtime.encode(messages) for messages in read_json(arguments.prompts)]
    for ids in prompts[:2]:  # warm-up
        runtime.ask(ids, arguments.max_new_tokens)
    requests = []
    for ids in prompts:
        reply = runtime.ask(ids, arguments.max_new_tokens)
        row = {
            "prompt_tokens": len(ids),
            "answer_tokens": len(reply.token_ids),
            "ttft_ms": reply.ttft_ms,
            "request_ms": reply.request_ms,
        }
        requests.append(row)
    print(json.dumps({"threads": arguments.threads, "rss_mb": peak_rss_mb() - before, "requests": requests}))


if __name__ == "__main__":
    main()
