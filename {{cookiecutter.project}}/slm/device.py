"""Does the sealed package say here what it said where it was judged? Needs the runtime, and nothing of the pipeline.

    python -m slm.device sealed            asks a fixed part of the test set, compares answer by answer

Processors sum in different orders, so a few answers may differ; more than the tolerance is another model. Milliseconds are stated, and
compared with no other machine; what is compared is their ratio to those of a reference, another rung that is sealed beside the package.
"""

import argparse
import json
import platform
import statistics
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from slm.errors import UserError, stage
from slm.runtime import GenAI

# Share of the answers that may differ. An assumption, not yet calibrated on devices.
TOLERANCE = 0.05
TIMED = 20


def time_share(model: Path, reference: Path, rows: list[dict[str, Any]], threads: int) -> float:
    """Median time of a request as a share of the reference's, both asked in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    runtimes = GenAI(model, threads), GenAI(reference, threads)
    for r in rows:
        for runtime, found in zip(runtimes, times, strict=True):
            found.append(runtime.ask(runtime.encode(r["messages"]), 128).request_ms or 0.0)
    return statistics.median(times[0][1:]) / statistics.median(times[1][1:])  # the first one warms up


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sealed", type=Path)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    seal = json.loads((arguments.sealed / "SEAL.json").read_text(encoding="utf-8"))
    lines = (arguments.sealed / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[1:]
    whole = [row for row in map(json.loads, filter(None, lines)) if not row["cut"]]
    rows = whole[:: max(1, len(whole) // arguments.examples)][: arguments.examples]
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(arguments.sealed / f"{seal['name']}.tar.gz") as tar:
            tar.extractall(scratch, filter="data")
        model = Path(scratch) / seal["name"] / "model"
        runtime = GenAI(model, arguments.threads)
        replies = [runtime.ask(runtime.encode(r["messages"]), 128) for r in rows]
        del runtime
        share = None
        if seal.get("reference"):
            with tarfile.open(arguments.sealed / "reference.tar.gz") as tar:
                tar.extractall(scratch, filter="data")
            share = time_share(model, Path(scratch) / seal["reference"]["rung"], rows[:TIMED], arguments.threads)
    flipped = [r["id"] for r, reply in zip(rows, replies, strict=True) if reply.text != r["answer"]]
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "asked": len(rows),
        "flipped": len(flipped),
        "request_ms_p50": round(statistics.median(r.request_ms or 0.0 for r in replies), 1),
        "time_share": share
        and {"of": seal["reference"]["rung"], "here": round(share, 3), "where judged": round(seal["reference"]["share"], 3)},
        "ttft_share": round(statistics.median((r.ttft_ms or 0.0) / (r.request_ms or 1.0) for r in replies), 3),
    }
    print(json.dumps(facts))
    if len(flipped) > TOLERANCE * len(rows):
        raise UserError(
            f"{len(flipped)} of {len(rows)} answers are not those of the machine that judged (tolerance {TOLERANCE:.0%}): "
            f"{', '.join(flipped[:5])}; compare onnxruntime-genai's version and build here with requirements/serve.txt"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
