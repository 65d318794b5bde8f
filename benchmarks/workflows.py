"""The workflows' figures: scenarios and injections through act, seconds of a change of words, tampered bytes, lint findings.

    make bench-workflows        (after make demo: the seconds are those of the default model)

Writes build/bench/workflows.json and prints the same as a table.
"""

import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path

from tests.bake import TEMPLATE
from tests.conftest import MADE
from tests.tamper import tampered
from tests.world import World, build_base
from tests.worlds import append

OUTPUT = TEMPLATE / "build" / "bench" / "workflows.json"
DEMO = TEMPLATE / "build" / "my-slm"
SCENARIOS = ("tests/test_workflows.py", "tests/test_release.py", "tests/test_remote.py", "tests/test_races.py")


def scenarios(report: Path) -> dict[str, float]:
    """Every scenario, the nightly ones too; docs/scenarios.md says what each shows."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *SCENARIOS, "tests/test_lint.py"]
    subprocess.run([*command, f"--junitxml={report}", "-m", "full or not full"], cwd=TEMPLATE, check=False)
    figures = dict.fromkeys(("scenarios_run", "scenarios_failed", "injections_tried", "injections_through", "lint_findings"), 0.0)
    for case in xml.parse(report).getroot().iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        if "test_lint" in case.get("classname", ""):
            figures["lint_findings"] += failed
            continue
        if case.find("skipped") is not None:
            continue
        tried = sum(int(p.get("value", 0)) for p in case.iter("property") if p.get("name") == "injections")
        figures["scenarios_run"] += 1
        figures["scenarios_failed"] += failed
        figures["injections_tried"] += tried
        figures["injections_through"] += tried if failed else 0
    return figures


def change_of_words(folder: Path) -> dict[str, float]:
    """Seconds from checkout to verdict for a change of documents, and stages run for a change of the contract."""
    build_base(DEMO, folder / "base", (DEMO / "gates.yaml").read_text(encoding="utf-8"))
    (folder / "world").mkdir()
    world = World(folder / "base", folder / "world")
    pull = world.pull(append("README.md", "\nMore words.\n"))
    start = time.monotonic()
    run = world.check(pull)
    verdict = world.judge(pull, run)
    seconds = time.monotonic() - start
    assert run.passed and verdict.passed and world.status(pull) == "success", run.log + verdict.log
    gates = (DEMO / "gates.yaml").read_text(encoding="utf-8").replace("at_least: 0.80", "at_least: 0.79")
    pull = world.pull(lambda f: (f / "gates.yaml").write_text(gates, encoding="utf-8") and None, branch="gates")
    run = world.check(pull, "candidate")
    world.close()
    return {"noop_pr_seconds": seconds, "recomputed_stages_on_gate_change": run.log.count("Running stage")}


def main() -> None:
    if not (DEMO / "dvc.lock").exists():
        sys.exit("build/my-slm holds no model: run `make demo` first")
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DEMO.parent) as scratch:
        figures = scenarios(Path(scratch) / "scenarios.xml")
        figures |= change_of_words(Path(scratch))
        tried, caught = tampered(MADE, MADE / "sealed", Path(scratch), 240)
        figures |= {"tampered_tried": tried, "tampered_caught_share": caught / tried}
    OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:36s}{value:10.3f}")


if __name__ == "__main__":
    main()
