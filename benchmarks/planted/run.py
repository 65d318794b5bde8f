"""Plant regressions and harmless changes in a healthy project, one a fresh copy, and see which gates fire.

    python -m benchmarks.planted.run                                  (after make test, whose environment is used; part of make bench-verdict)
    python -m benchmarks.planted.run --only "adapter not merged"
    python -m benchmarks.planted.run --list

Prints a table (case, what must fire, what fired, whether that was right) and writes build/bench/planted.json. A case whose inputs
have not changed since it was last run is not run again: its row is in build/planted/results.json. The verdicts themselves are kept in
build/planted/verdicts.
"""

import argparse
import hashlib
import inspect
import json
import os
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.planted.case import CHANGES, GATE, JUDGE, LOCK, TESTS, Case, Command
from benchmarks.planted.cases import CASES
from benchmarks.planted.world import HOME, PARAMS, SIZES, copy, prepare, run
from tests.bake import TEMPLATE
from tests.conftest import QUICK

OUTPUT = TEMPLATE / "build" / "bench" / "planted.json"
RESULTS = HOME / "results.json"
Row = dict[str, Any]
NAMES = {GATE: "gate", JUDGE: "judge", LOCK: "lock", TESTS: "tests", CHANGES: "changes"}
VERDICTS = {GATE: Path("reports/verdict.json"), JUDGE: Path("verdict/verdict.json")}


def refusal(command: Command, code: int, log: str) -> str:
    """The stage that refused, by its message; anything else that goes wrong is a crash, and no case may end so."""
    stage = NAMES.get(command) or command[2].removeprefix("pipeline.")
    if command[0] == "dvc":
        failed = re.search(r"failed to reproduce '([\w-]+)", log)
        stage = failed[1] if failed else "dvc"
    clear = re.search(r"^error: ", log, re.MULTILINE) or command == TESTS
    return f"refused: {stage}" if clear and "Traceback" not in log.split("error: ")[0][-2000:] else f"crashed: {stage} ({code})"


def fired_in(path: Path) -> tuple[list[str], list[str]]:
    """Names of what fired in a verdict, and why."""
    verdict = json.loads(path.read_text(encoding="utf-8"))
    names, why = [], []
    for g in verdict["gates"]:
        if g["passed"] is False and not g["waived"]:
            names.append(g["name"] if g["severity"] == "block" else f"warns: {g['name']}")
            why.append(f"{names[-1]}: {g['why']}")
    if verdict["weakened"]:
        names.append("weakened")
        why += verdict["weakened"]
    return names, why


def try_case(case: Case, healthy: Path, folder: Path, kept: Path) -> Row:
    """Plant, run, judge. What a command that refuses leaves behind is not judged further.

    Args:
        folder: where the copy is made; it is gone afterwards.
        kept: a folder for the log and the verdicts.
    """
    copy(healthy, folder)
    case.plant(folder)
    fired: list[str] = []
    why: list[str] = []
    seconds: list[float] = []
    log = ""
    for command in case.run:
        done = run(folder, *command)
        log += f"$ {' '.join(command)}\n{done.log}\n"
        if done.code:
            fired.append(refusal(command, done.code, done.log))
            why.append(" ".join(done.log.split()[-60:]))
            break
    else:
        for door in case.doors:
            path = folder / VERDICTS[door] if door in VERDICTS else None
            if path:
                path.unlink(missing_ok=True)
            done = run(folder, *door)
            log += f"$ {' '.join(door)}\n{done.log}\n"
            if door == GATE:
                seconds.append(done.seconds)
            if path and path.exists():
                names, reasons = fired_in(path)
                fired += [n for n in names if n not in fired]
                why += reasons
            elif door == CHANGES and not done.code:
                why += json.loads(done.log)["weakened"]
                fired += ["weakened"] if why else []
            elif done.code:
                fired.append(refusal(door, done.code, done.log))
                why.append(" ".join(done.log.split()[-60:]))
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    (kept / "log.txt").write_text(log, encoding="utf-8")
    for name in ("reports/verdict.md", "verdict/comment.md", "reports/ladder.json"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, kept / Path(name).name)
    shutil.rmtree(folder)
    return {"fired": fired, "why": why, "gate_seconds": seconds}


def outcome(case: Case, fired: list[str]) -> str:
    """ok, missed (nothing fired), wrong gate (not what must, or what may not), fired (a harmless change did not pass)."""
    loud = [name for name in fired if not name.startswith("warns: ")]
    if case.harmless:
        return "fired" if loud else "ok"
    if not loud:
        return "missed"
    held = all(any(name in fired for name in must.split(" | ")) for must in case.must)
    known = {name for must in case.must for name in must.split(" | ")} | set(case.may)
    return "ok" if held and set(loud) <= known else "wrong gate"


def judged(case: Case, row: Row) -> Row:
    return row | {"kind": case.kind, "must": case.must, "may": case.may, "outcome": outcome(case, row["fired"])}


def parts_of(value: Any, seen: set[str]) -> list[str]:
    """The source of a plant, of the functions of these files that it calls or was made with, and the texts that these use."""
    if not inspect.isfunction(value):
        return [] if inspect.ismodule(value) or inspect.isclass(value) or callable(value) else [repr(value)]
    if not value.__module__.startswith("benchmarks.planted"):
        return []
    source = inspect.getsource(value)
    used = [cell.cell_contents for cell in value.__closure__ or ()]
    used += [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
    if source in seen and not value.__closure__:
        return []
    seen.add(source)
    return [source] + [part for inner in used for part in parts_of(inner, seen)]


def key_of(case: Case, world: str) -> str:
    """Names all that a case's run depends on: the healthy project, the code that plants the fault, what is then run and judged by."""
    parts = [world, case.name, case.run, case.doors, parts_of(case.plant, set())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def figures_of(rows: dict[str, Row]) -> dict[str, float]:
    planted = [r for r in rows.values() if r["kind"] != "harmless"]
    harmless = [r for r in rows.values() if r["kind"] == "harmless"]
    seconds = [s for r in rows.values() for s in r["gate_seconds"]]
    return {
        "planted": len(planted),
        "planted_caught": sum(r["outcome"] == "ok" for r in planted),
        "planted_missed": sum(r["outcome"] == "missed" for r in planted),
        "planted_wrong_gate": sum(r["outcome"] == "wrong gate" for r in planted),
        "harmless": len(harmless),
        "harmless_fired": sum(r["outcome"] == "fired" for r in harmless),
        "planted_gate_seconds": statistics.median(seconds) if seconds else float("nan"),
    }


def line(name: str, row: Row) -> str:
    wanted = ", ".join(row["must"]) or "nothing"
    return f"{name:52s}{row['outcome']:12s}must: {wanted}; fired: {', '.join(row['fired']) or 'nothing'}"


def summarise(rows: dict[str, Row], show: bool) -> dict[str, float]:
    """Print the figures, after the rows if `show`."""
    for name, row in rows.items() if show else ():
        print(line(name, row))
    figures = figures_of(rows)
    print()
    for name, value in figures.items():
        print(f"{name:36s}{value:10.3f}")
    return figures


def run_cases(chosen: list[Case], environment: Path, again: bool = False) -> dict[str, Row]:
    """Run the cases and print a line for each. One whose inputs have not changed since is not run again, unless `again`.

    Args:
        environment: a project that is set up.
    """
    healthy = prepare(environment)
    world = (HOME / "healthy.json").read_text(encoding="utf-8") + json.dumps([SIZES, PARAMS])
    results: dict[str, Row] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    shown: dict[str, Row] = {}
    for case in chosen:
        key, row = key_of(case, world), results.get(case.name)
        if row is None or row["key"] != key or again:
            row = {"key": key} | try_case(case, healthy, HOME / "case", HOME / "verdicts" / re.sub(r"\W+", "-", case.name))
            results = (json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}) | {case.name: row}
            save(RESULTS, results)
        row = shown[case.name] = judged(case, row)
        print(line(case.name, row), flush=True)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help="run only the cases of this name or kind; can be given again")
    parser.add_argument(
        "--environment", type=Path, default=QUICK, help="a project that is set up (default: build/test-slm, which make test makes)"
    )
    parser.add_argument("--list", action="store_true", help="print the cases and what they must and may fire, and run none")
    parser.add_argument("--done", action="store_true", help="print the cases that were run, with whatever inputs, and run none")
    parser.add_argument("--again", action="store_true", help="run cases although their inputs have not changed")
    arguments = parser.parse_args()
    chosen = [c for c in CASES if not arguments.only or c.name in arguments.only or c.kind in arguments.only]
    if not chosen:
        parser.error("no case has this name or kind; --list prints them")
    if arguments.list:
        for case in chosen:
            print(f"{case.kind:12s}{case.name:52s}must: {', '.join(case.must) or 'nothing'}; may: {', '.join(case.may) or 'nothing'}")
        return

    if arguments.done:
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        summarise({c.name: judged(c, known[c.name]) for c in chosen if c.name in known}, show=True)
        return

    shown = run_cases(chosen, arguments.environment, arguments.again)
    figures = summarise(shown, show=False)
    if not arguments.only:
        save(OUTPUT, {"figures": figures, "cases": shown})


if __name__ == "__main__":
    main()
