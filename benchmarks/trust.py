"""Does anything ship that nobody asked? Attacks that the tests run, each beside its honest twin, and what the trust costs.

    make bench-trust       (after make demo; a quarter of an hour)

Writes build/bench/trust.json and prints the same as a table:

attacks, attacks_through          tests marked `attack`, of template and body, and those that failed: the attack came through
twins, honest_twins_refused       the same of the tests marked `twin`: what is honest must pass
files_without_owner               files of the demo's project that CODEOWNERS gives to nobody, words apart
contamination_found, …            benchmarks/contamination.py
server_…                          benchmarks/serving_trust.py
seal_asks_seconds                 what it takes to ask, time and judge the demo's package before it is sealed
noop_pr_seconds, planted, …       as `make bench-workflows` and `make bench-verdict` wrote them
"""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks import contamination, serving_trust

TEMPLATE = Path(__file__).parents[1]
PROJECT = Path(sys.argv[1]).resolve()
OUTPUT = TEMPLATE / "build" / "bench" / "trust.json"
# Figures of other benches that belong here, and the file of each.
OTHERS = {"noop_pr_seconds": "workflows", "planted": "verdict", "planted_missed": "verdict", "harmless_fired": "verdict"}
Figures = dict[str, float | None]


def outcomes(python: Path, folder: Path, mark: str, more: tuple[str, ...] = ()) -> list[bool]:
    """Whether each test of a mark passed; a test that was skipped does not count."""
    report = OUTPUT.with_name(f"trust-{folder.name}-{mark}.xml")
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", mark, f"--junitxml={report}", *more, "tests"]
    subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=False)
    cases = ElementTree.parse(report).getroot().iter("testcase")
    found = [{child.tag for child in case} for case in cases]
    report.unlink()
    return [not tags & {"failure", "error"} for tags in found if "skipped" not in tags]


def attacks() -> Figures:
    places = [(PROJECT / ".venv" / "bin" / "python", PROJECT), (TEMPLATE / ".venv" / "bin" / "python", TEMPLATE)]
    tried = [passed for place in places for passed in outcomes(*place, "attack")]
    honest = [passed for place in places for passed in outcomes(*place, "twin")]
    return {
        "attacks": len(tried),
        "attacks_through": len(tried) - sum(tried),
        "twins": len(honest),
        "honest_twins_refused": len(honest) - sum(honest),
    }


def owners() -> Figures:
    sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
    from slm.verdict.changes import WORDS
    from test_owners import OWNERS, files, owned

    text = OWNERS.read_text(encoding="utf-8")
    lacking = [name for name in files() if not owned(name, text)]
    words = [name for name in lacking if re.fullmatch(WORDS, name)]
    return {"files_without_owner": len(lacking) - len(words), "words_without_owner": len(words)}


def recheck() -> Figures:
    """The demo's own package, offered and asked as main's workflow does it."""
    for step in ("offer", "recheck"):
        command = [str(PROJECT / ".venv" / "bin" / "python"), "-m", "slm", "release", step]
        subprocess.run(command, cwd=PROJECT, stdout=sys.stderr, check=True)
    found = json.loads((PROJECT / "rechecked" / "findings.json").read_text(encoding="utf-8"))
    return {"seal_asks_seconds": found["seconds"], "recheck_passed": float(found["passed"])}


def written_elsewhere() -> Figures:
    figures: Figures = {}
    for name, bench in OTHERS.items():
        path = OUTPUT.with_name(f"{bench}.json")
        figures[name] = json.loads(path.read_text(encoding="utf-8"))["figures"].get(name) if path.exists() else None
    return figures


def main() -> None:
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    figures: Figures = attacks() | owners() | recheck()
    figures |= contamination.figures()
    figures |= {name if name.startswith("server") else f"server_{name}": value for name, value in serving_trust.figures().items()}
    figures |= written_elsewhere()
    OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:40s}{'–' if value is None else format(value, '10.3f'):>10s}")


if __name__ == "__main__":
    main()
