"""Can an adopter find the way in the baked project, and read what is said of it? Facts about code, commands and prose.

    make bench-house       (code and prose of this template; the command `slm` in the demo's environment: make demo first)

Writes build/bench/house.json and prints the same as a table. What is measured, where the name does not say it:

layer_violations     contracts of `tool.importlinter` in the body's pyproject.toml that `lint-imports` finds broken
cycles               groups of modules that import each other in a circle, by any way, in functions too
max_function_lines   of slm, pipeline and bootstrap.py; the rule is tests/test_code_form.py of the body
public_names_shared  functions, classes and constants that two modules of slm define, `main` apart
help_ratio           median time of `python -m slm --help` over that of `python -c "import typer"`, RUNS of each in turn
docs_commands        commands that README and docs name; benchmarks/commands.py says what is one and what tests it
sentences_… cells_…  README and docs by the rules of benchmarks/prose.py
hashes_changed       of the proof, from build/bench/proof.json; without it null: `make bench-proof` makes it
"""

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grimp
import networkx

from benchmarks import commands, prose
from benchmarks.prose import BODY, TEMPLATE

sys.path.insert(0, str(BODY / "tests"))

import test_code_form as form

OUTPUT = TEMPLATE / "build" / "bench" / "house.json"
PROOF = OUTPUT.with_name("proof.json")
RUNS = 15
COLUMNS = 110
Figures = dict[str, float | None]


def layers() -> tuple[int, list[str]]:
    """Broken contracts, by what `lint-imports` prints, and their names."""
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"]
    printed = subprocess.run(command, cwd=BODY, capture_output=True, encoding="utf-8", check=False)
    total = re.search(r"^Contracts: \d+ kept, (\d+) broken", printed.stdout, re.MULTILINE)
    assert total, printed.stdout + printed.stderr
    return int(total[1]), re.findall(r"^(.+) BROKEN", printed.stdout, re.MULTILINE)


def cycles() -> list[list[str]]:
    graph = grimp.build_graph("slm", "pipeline", cache_dir=None)
    arrows = networkx.DiGraph((m, other) for m in graph.modules for other in graph.find_modules_directly_imported_by(m))
    return [sorted(group) for group in networkx.strongly_connected_components(arrows) if len(group) > 1]


def code() -> tuple[Figures, dict[str, Any]]:
    violations, broken = layers()
    circles = cycles()
    modules = form.read_all()
    longest = {f"{path}: {name}": n for path, source in modules.items() for name, n in form.function_lines(source)}
    python = [path for path in BODY.rglob("*.py") if ".venv" not in path.parts]
    wide = {
        path.relative_to(BODY).as_posix(): count
        for path in sorted(python)
        if (count := sum(len(line) > COLUMNS for line in path.read_text(encoding="utf-8").splitlines()))
    }
    shared = form.shared_names(modules)
    figures: Figures = {
        "modules_in_slm_root": sum(path.stem != "__init__" for path in (BODY / "slm").glob("*.py")),
        "packages": sum((path / "__init__.py").exists() for path in (BODY / "slm").iterdir()),
        "layer_violations": violations,
        "cycles": len(circles),
        "max_function_lines": max(longest.values()),
        "lines_over_110": sum(wide.values()),
        "public_names_shared": len(shared),
    }
    long = {name: n for name, n in longest.items() if n > form.LONGEST}
    return figures, {"broken": broken, "circles": circles, "long_functions": long, "wide_lines": wide, "shared": shared}


def seconds(command: list[str], project: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=project, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def help_ratio(project: Path) -> float | None:
    """None where the project has no command yet."""
    if not (project / "slm" / "__main__.py").exists():
        return None
    pair = ([sys.executable, "-m", "slm", "--help"], [sys.executable, "-c", "import typer"])
    times = [[seconds(command, project) for command in pair] for _ in range(RUNS + 1)][1:]  # the first compiles
    ours, typer = (statistics.median(column) for column in zip(*times, strict=True))
    return ours / typer


def text() -> tuple[Figures, dict[str, Any]]:
    survey = commands.survey()
    untested = {command: why for command, (is_tested, why) in survey.items() if not is_tested}
    figures: Figures = {
        "docs_commands": len(survey),
        "docs_commands_untested": len(untested),
        "docs_commands_untested_without_reason": sum(not why for why in untested.values()),
        **prose.figures([page.read_text(encoding="utf-8") for page in prose.pages()]),
    }
    return figures, {"untested": untested}


def main() -> None:
    project = Path(sys.argv[1])
    changed = [
        path.relative_to(BODY).as_posix()
        for path in (BODY / "slm").rglob("*.py")
        if not (copy := project / path.relative_to(BODY)).exists() or copy.read_bytes() != path.read_bytes()
    ]
    if changed:
        sys.exit(f"{project} was baked before {changed[0]} was changed: bake it again (python -m tests.bake {project})")
    sys.path.insert(0, str(BODY))
    figures, details = code()
    figures["help_ratio"] = help_ratio(project)
    of_text, more = text()
    figures |= of_text
    figures["hashes_changed"] = json.loads(PROOF.read_text())["figures"]["hashes_changed"] if PROOF.exists() else None
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": figures, **details, **more}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:40s}{'–' if value is None else format(value, '10.2f' if isinstance(value, float) else '10d'):>10s}")
    for command, why in more["untested"].items():
        print(f"  not run by a test: {command:36s}{why or 'NO REASON GIVEN'}")
    for name, lines in details["long_functions"].items():
        print(f"  {lines} lines: {name}")
    if figures["help_ratio"] is None:
        print("  help_ratio: this project has no command `slm` yet")
    if figures["hashes_changed"] is None:
        print("  hashes_changed: `make bench-proof` makes it")


if __name__ == "__main__":
    main()
