"""A stranger's first half hour: a fresh clone, an empty home, empty caches, `make demo`, and a second `dvc repro`.

    make bench-demo

Writes build/bench/demo.json and prints the same as a table, and leaves the project in build/my-slm, where the other benches look for it.
Where the minutes go is read from DVC's own output.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import psutil

from tests.bake import TEMPLATE, bake

OUTPUT = TEMPLATE / "build" / "bench" / "demo.json"
DEMO = TEMPLATE / "build" / "my-slm"
# What a machine sets for its network; caches, tokens and paths of the one who runs this stay out.
KEPT = "PATH|LANG|TERM|UV_FIND_LINKS|PIP_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|.*_PROXY"


def tree_rss_mb(process: psutil.Process) -> float:
    """Resident memory of a process and all that it started, in 10^6 bytes (shared pages counted each time)."""
    total = 0
    for p in [process, *process.children(recursive=True)]:
        try:
            total += p.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def run(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> tuple[int, float, float, dict[str, float]]:
    """Exit code, seconds, peak RSS in MB, and the seconds of each stage that DVC announced."""
    start, peak = time.monotonic(), 0.0
    marks: list[tuple[str, float]] = [("set-up", start)]
    with log.open("w+b") as stream:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        handle, seen = psutil.Process(process.pid), 0
        while process.poll() is None:
            time.sleep(0.5)
            if handle.is_running():
                peak = max(peak, tree_rss_mb(handle))
            found = re.findall(rb"Running stage '([^']+)'|(Traceback|reports/report\.html)", log.read_bytes())
            for name, _ in found[seen:]:
                marks.append((name.decode() or "report and gate", time.monotonic()))
            seen = len(found)
    end = time.monotonic()
    marks.append(("end", end))
    stages = {name: after - at for (name, at), (_, after) in pairwise(marks)}
    return process.returncode, end - start, peak, stages


def keep(project: Path) -> None:
    """The measured project for the other benches. An environment cannot move, so that of build/my-slm stays, or is made."""
    shutil.rmtree(project / ".venv")
    if (DEMO / ".venv").exists():
        (DEMO / ".venv").rename(project / ".venv")
    shutil.rmtree(DEMO, ignore_errors=True)
    shutil.move(project, DEMO)
    subprocess.run(["make", "setup"], cwd=DEMO, check=True)


def main() -> None:
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    log = OUTPUT.with_suffix(".log")
    with tempfile.TemporaryDirectory() as scratch:
        home, clone = Path(scratch) / "home", Path(scratch) / "clone"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(TEMPLATE), str(clone)], check=True)
        environment = {k: v for k, v in os.environ.items() if re.fullmatch(KEPT, k, re.IGNORECASE)} | {"HOME": str(home)}
        code, seconds, peak, stages = run(["make", "demo"], clone, environment, log)
        project = clone / "build" / "my-slm"
        verdict = json.loads((project / "reports" / "verdict.json").read_text(encoding="utf-8"))
        ladder = json.loads((project / "reports" / "ladder.json").read_text(encoding="utf-8"))
        _, second, _, _ = run(["make", "repro"], project, environment, log.with_suffix(".second.log"))
        assert "up to date" in log.with_suffix(".second.log").read_text(encoding="utf-8", errors="replace")
        for name in ("ladder.json", "verdict.json", "report.html"):
            shutil.copyfile(project / "reports" / name, OUTPUT.with_name(f"demo-{name}"))
        start = time.monotonic()
        bake(Path(scratch) / "bake" / "my-slm")
        bake_s = time.monotonic() - start
        keep(project)

    rungs = {r["name"]: r for r in ladder["rungs"]}
    teacher, onnx, int4 = rungs["teacher"], rungs["onnx"], rungs["int4"]
    figures = {
        "minutes": seconds / 60,
        "peak_rss_mb": peak,
        "verdict_passed": int(verdict["passed"] and code == 0),
        "teacher_score": teacher["score"],
        "int4_score": int4["score"],
        "kept": int4["score"] / teacher["score"],
        "time_share": int4["request_ms_p50"] / teacher["request_ms_p50"],
        "weights_share": int4["weights_mb"] / teacher["weights_mb"],
        "parameters_m": int4["parameters_m"],
        "rss_share": int4["rss_mb"] / teacher["rss_mb"],
        "int4_of_onnx": int4["score"] / onnx["score"],
        "second_repro_s": second,
        "bake_s": bake_s,
    }
    OUTPUT.write_text(json.dumps({"figures": figures, "stage_seconds": stages, "machine": ladder["machine"]}, indent=2) + "\n")
    for name, value in [*figures.items(), *((f"  {k} (s)", v) for k, v in stages.items())]:
        print(f"{name:32s}{value:10.3f}")


if __name__ == "__main__":
    main()
