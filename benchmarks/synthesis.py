"""The endpoint teacher under load, under fire and under the knife: how fast, how much memory, what is lost, what is believed.

    make bench-synthesis                     (in the demo's environment, after make demo; about 15 minutes on two cores)
    make bench-synthesis MILLION=1000000     also the memory of a million requests and prompts, some 50 minutes more

The server is tests/teacher_server.py of the baked project, in a process of its own: no model, fixed answers, latency and faults to order. A bare
asyncio client that does nothing but send and read says what server and machine allow; ideal is that or concurrency / latency, if less. The client
measured is the one that the pipeline uses, response store included: from the first request until the last answer is on disk. Writes build/bench/synthesis.json and
prints the same as a table.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from teacher.attacks import budgets, hostile, kills
from teacher.common import KEY, OUTPUT, Figures
from teacher.load import dedup, distilabel, memory, throughput


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project")
    parser.add_argument("--seconds", type=float, default=40, help="of each throughput run, at the ideal rate")
    parser.add_argument("--places", type=int, nargs="*", default=[8, 32, 64], help="requests that the server allows at once, one run each")
    parser.add_argument("--million", type=int, default=0, help="requests of the large memory run; 0: none")
    parser.add_argument("--distilabel", type=int, default=3000, help="requests of the comparison")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=["throughput", "distilabel", "memory", "dedup", "kills", "hostile", "budgets"])
    arguments = parser.parse_args()
    os.environ["PLANTED_KEY"] = KEY
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    figures: Figures = json.loads(OUTPUT.read_text())["figures"] if OUTPUT.exists() else {}

    def note(found: Figures) -> None:
        """Written at once: a later part that fails costs none of it."""
        figures.update(found)
        OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(dir=OUTPUT.parent) as name:
        scratch = Path(name)
        if "throughput" in arguments.only:
            for places in arguments.places:
                note(throughput(scratch, places, arguments.seconds))
            note({"throughput_fraction_of_ideal": min(figures.get(f"throughput_fraction_of_ideal_{c}", 0.0) for c in (8, 32, 64))})
        if "memory" in arguments.only:
            note(memory(scratch, 100_000))
            if arguments.million:
                note(memory(scratch, arguments.million))
                rss = figures[f"rss_mb_{arguments.million}"]
                note({"rss_mb_1m": rss, "rss_growth": rss / figures["rss_mb_100000"] - 1})
        if "dedup" in arguments.only:
            note(dedup(100_000, 100_000))
            note(dedup(100_000, 10_000))
            if arguments.million:
                note(dedup(arguments.million, 100_000))
                found = dedup(arguments.million, arguments.million)  # with the default memory
                note(
                    found
                    | {
                        f"dedup_{what}_1m": found[f"dedup_{what}_{arguments.million}_among_{arguments.million}"]
                        for what in ("minutes", "rss_mb")
                    }
                )
        if "kills" in arguments.only:
            (scratch / "kills").mkdir()
            note(kills(scratch / "kills", arguments.kills))
        if "hostile" in arguments.only:
            note(hostile(scratch))
        if "budgets" in arguments.only:
            note(budgets(scratch))
        if "distilabel" in arguments.only:
            note(distilabel(scratch, arguments.distilabel))
    for name, value in figures.items():
        print(f"{name:48s}{value:14.4f}")


if __name__ == "__main__":
    main()
