"""Does the sealed package say here what it said where it was judged? Needs the runtime, and nothing of the
pipeline.

    python -m slm.ci.device sealed            asks a fixed part of the test set, compares answer by answer,
                                              writes device.json

Processors sum in different orders, so a few answers may differ; more than the tolerance is another model. The
tolerance is that of devices.json, which the first run on devices proposes (slm/ci/device_tolerance.py).
Milliseconds are stated, and compared with no other machine; what is compared is their ratio to those of a
reference, another rung that is sealed beside the package.
"""

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

from slm.errors import UserError, exit_on_user_error
from slm.files import read_json, unpack, write_json
from slm.github import LARGEST_ASSET_MB
from slm.inference.genai import GenAI

DEVICE_FACTS = Path("device.json")
TOLERANCE = Path("devices.json")
ASSUMED = 0.05  # of the answers may differ, until devices were asked
TIMED = 20


class AnswersDiffer(UserError):
    """What the package says here is not what it said where it was judged."""

    exit_code = 1


def time_share(model: Path, reference: Path, rows: list[dict[str, Any]], longest: int, threads: int) -> float:
    """Median time of a request as a share of the reference's, both asked in turn for at most `longest`
    tokens.
    """
    times: tuple[list[float], list[float]] = ([], [])
    runtimes = GenAI(model, threads), GenAI(reference, threads)
    for r in rows:
        for runtime, found in zip(runtimes, times, strict=True):
            found.append(runtime.ask(runtime.encode(r["messages"]), longest).request_ms or 0.0)
    return statistics.median(times[0][1:]) / statistics.median(times[1][1:])  # the first one warms up


def try_device(sealed: Path, examples: int = 100, threads: int = 1) -> None:
    """Ask the sealed package a fixed part of the test set here, and write what came of it to device.json.

    Raises:
        AnswersDiffer: more answers than the tolerance allows are not those of the machine that judged.
    """
    seal = json.loads((sealed / "SEAL.json").read_text(encoding="utf-8"))
    lines = (sealed / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[1:]
    whole = [row for row in map(json.loads, filter(None, lines)) if not row["cut"]]
    rows = whole[:: max(1, len(whole) // examples)][:examples]
    with tempfile.TemporaryDirectory() as scratch:
        unpack(sealed / f"{seal['name']}.tar.gz", Path(scratch), LARGEST_ASSET_MB)
        model = Path(scratch) / seal["name"] / "model"
        runtime = GenAI(model, threads)
        # What is longer than the longest answer is another one; the same text may be cut into a few tokens
        # more.
        longest = 8 + max(len(runtime.tokenizer.encode(r["answer"])) for r in rows)
        replies = [runtime.ask(runtime.encode(r["messages"]), longest) for r in rows]
        del runtime
        share = None
        if seal.get("reference"):
            unpack(sealed / "reference.tar.gz", Path(scratch), LARGEST_ASSET_MB)
            share = time_share(
                model, Path(scratch) / seal["reference"]["rung"], rows[:TIMED], longest, threads
            )
    flipped = [r["id"] for r, reply in zip(rows, replies, strict=True) if reply.text != r["answer"]]
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "asked": len(rows),
        "flipped": len(flipped),
        "request_ms_p50": round(statistics.median(r.request_ms or 0.0 for r in replies), 1),
        "time_share": share
        and {
            "of": seal["reference"]["rung"],
            "here": round(share, 3),
            "where judged": round(seal["reference"]["share"], 3),
        },
        "ttft_share": round(
            statistics.median((r.ttft_ms or 0.0) / (r.request_ms or 1.0) for r in replies), 3
        ),
    }
    print(json.dumps(facts), flush=True)
    write_json(DEVICE_FACTS, facts)
    allowed, why = ASSUMED, f"assumed, there is no {TOLERANCE} yet"
    if TOLERANCE.exists():
        allowed, why = read_json(TOLERANCE)["tolerance"], f"of {TOLERANCE}"
    if len(flipped) > allowed * len(rows):
        raise AnswersDiffer(
            f"{len(flipped)} of {len(rows)} answers are not those of the machine that judged (tolerance "
            f"{allowed:.0%}, {why}): "
            f"{', '.join(flipped[:5])}; compare onnxruntime-genai's version and build here with "
            "requirements/serve.txt"
        )


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("sealed", type=Path)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    try_device(arguments.sealed, arguments.examples, arguments.threads)


if __name__ == "__main__":
    main()
