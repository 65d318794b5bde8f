"""What the full profile makes of the default task: one teacher, and a student from each of several seeds.

    make bench-student            three seeds; SEEDS=1: the first alone
    make bench-student FRESH=1    from nothing: an earlier project in build/student is thrown away first

The project lives in build/student. Stopped or killed, the command goes on where it was: DVC keeps finished stages, training its last checkpoint.
The minutes are those of everything up to the verdict of the first seed, set-up included, over all attempts. Then the training of the student is
put beside TRL's SFTTrainer (benchmarks/peer.py). Writes build/bench/student.json, by what it was made, and prints it as a table.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peer import compare
from tests.bake import TEMPLATE, bake
from tests.conftest import environment

OUTPUT = TEMPLATE / "build" / "bench" / "student.json"
PROJECT = TEMPLATE / "build" / "student"
CLOCK = PROJECT.with_name("student-seconds.json")
TICK_S = 5.0


def timed(command: list[str]) -> int:
    """Run a command in the project, and add its time to the clock while it runs, so that a kill loses no more than one tick."""
    process = subprocess.Popen(command, cwd=PROJECT, env=environment())
    before, start, code = json.loads(CLOCK.read_text()) if CLOCK.exists() else 0.0, time.monotonic(), None
    while code is None:
        try:
            code = process.wait(TICK_S)
        except subprocess.TimeoutExpired:
            pass
        except KeyboardInterrupt:
            process.wait()
            raise
        CLOCK.write_text(json.dumps(before + time.monotonic() - start))
    return code


def python(*arguments: str | Path) -> str:
    binary = PROJECT / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return subprocess.run([binary, *arguments], cwd=PROJECT, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


def make() -> None:
    """The project, from nothing to its verdict, or from where an earlier attempt stopped."""
    if not (PROJECT / "params.yaml").exists():
        shutil.rmtree(PROJECT, ignore_errors=True)
        CLOCK.unlink(missing_ok=True)
        bake(PROJECT)
        if timed(["make", "profile", "NAME=full"]):  # sets up first
            raise SystemExit("the set-up failed, see above")
    if not (PROJECT / "reports" / "verdict.json").exists() and timed(["make", "repro", "gate"]):
        raise SystemExit("the full profile did not pass its gates, or did not get so far, see above; run the same command again to go on")


def figures(seeds: int) -> dict[str, float]:
    """Of the ladder of the first seed, and of the answers of all of them, by the project's own code."""
    read: dict[str, Any] = json.loads((PROJECT / "reports" / "ladder.json").read_text(encoding="utf-8"))
    rungs = {r["name"]: r for r in read["rungs"]}
    teacher, int4, onnx = rungs["teacher"], rungs["int4"], rungs["onnx"]
    asked = {(PROJECT / "models" / name / "chat_template.jinja").read_text(encoding="utf-8") for name in ("teacher-onnx", "int4")}
    assert len(asked) == 1, "teacher and student are asked in other words: time them with the same ones too"
    time_share = int4["request_ms_p50"] / teacher["request_ms_p50"]
    found = {
        "full_minutes": json.loads(CLOCK.read_text()) / 60,
        "full_examples": int4["n"],
        "full_teacher_score": teacher["score"],
        "full_int4_score": int4["score"],
        "full_time_share": time_share,
        "full_time_share_same_prompt": time_share,
        "full_weights_share": int4["weights_mb"] / teacher["weights_mb"],
        "full_parameters_m": int4["parameters_m"],
        "full_rss_share": int4["rss_mb"] / teacher["rss_mb"],
        "full_int4_of_onnx": int4["score"] / onnx["score"],
    }
    if seeds > 1:
        subprocess.run(["make", "seeds", f"N={seeds}"], cwd=PROJECT, env=environment(), check=True)
    return found | json.loads(python(Path(__file__).with_name("kept.py"), str(seeds)).splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="throw an earlier project away first")
    arguments = parser.parse_args()
    if arguments.fresh:
        shutil.rmtree(PROJECT, ignore_errors=True)
    make()
    result = figures(arguments.seeds)
    result |= {name if name == "trainer_ratio" else f"full_{name}": value for name, value in compare(PROJECT).items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    machine = json.loads((PROJECT / "reports" / "ladder.json").read_text(encoding="utf-8"))["machine"]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=TEMPLATE, stdout=subprocess.PIPE, text=True, check=True).stdout
    made_by = {"command": "make bench-student", "seeds": arguments.seeds, "template_at_the_end": commit.strip(), "machine": machine}
    OUTPUT.write_text(json.dumps({"figures": result, "made_by": made_by}, indent=2) + "\n", encoding="utf-8")
    for name, value in result.items():
        print(f"{name:36s}{value:10.3f}")


if __name__ == "__main__":
    main()
