"""Does the code of two commits make the same model? Every byte of models, data and predictions, every figure of the reports.

    python -m benchmarks.proof BEFORE AFTER                                    bakes both, runs quick and default profile in both
    python -m benchmarks.proof --projects BEFORE_DIR AFTER_DIR [BEFORE_DIR AFTER_DIR ...]    compares projects that have run

A change of structure must change no result. Both commits are baked into folders of the same name and run on one machine in
one go, since another processor rounds floats otherwise: an hour and a half on two cores. Their package, prose apart, and
their verdict are compared too. What may differ is in PERMITTED, with the reason; all else counts as changed. Prints a
table, writes build/bench/proof.json. Runs go on where they stopped: a project that has its verdict is not run again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.bake import TEMPLATE

WORK = TEMPLATE / "build" / "proof"
OUTPUT = TEMPLATE / "build" / "bench" / "proof.json"
PROFILES = ("quick", "default")
# What may differ between two runs of the same code, or between two layouts of it.
PERMITTED = {
    "dist/*/README.md": "the model card is prose",
    "dist/*/SHA256SUMS": "it names the model card",
    "dist/*.tar.gz": "it holds the model card",
    "reports/report.html": "a page for people",
    "reports/verdict.md": "a page for people",
    "times and memory": "measured; no two runs have the same",
    "why": "a sentence for people",
    "contract_sha256, revision": "comments of gates.yaml, and the commit itself",
}
PROSE = ("README.md", "SHA256SUMS")
PAGES = ("report.html", "verdict.md")
MEASURED = ("request_ms", "ttft_ms", "decode_tokens_per_s", "rss_mb", "ratios", "attempts", "agreed", "seconds", "tokens_per_s")
SAID = ("why", "contract_sha256", "revision")


def run_project(commit: str, profile: str, side: str) -> Path:
    """The project that a commit bakes, after `make repro` and `make gate` with a profile."""
    source, folder = WORK / side / "template", WORK / side / profile / "my-slm"
    if (folder / "reports" / "verdict.json").exists():
        return folder
    if not source.exists():
        subprocess.run(["git", "worktree", "add", "--force", "--detach", source, commit], cwd=TEMPLATE, check=True)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "tests.bake", folder], cwd=source, check=True)
    subprocess.run(["make", "setup"], cwd=folder, check=True)
    if profile != "default":
        subprocess.run(["make", "profile", f"NAME={profile}"], cwd=folder, check=True)
    subprocess.run(["make", "repro"], cwd=folder, check=True)
    subprocess.run(["make", "gate"], cwd=folder, check=False)  # a quick model is refused; its verdict counts all the same
    return folder


def contents(folder: Path) -> Iterator[tuple[str, Any]]:
    """What is compared: name, and bytes or the facts that count."""
    for part in ("models", "data", "predictions", "reports", "dist"):
        for path in sorted((folder / part).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if not path.is_file() or path.suffix == ".gz" or path.name in PAGES:
                continue
            if part == "dist" and path.parent.parent == folder / "dist" and path.name in PROSE:
                continue
            if path.suffix == ".json" and part == "reports":
                yield name, facts(json.loads(path.read_text(encoding="utf-8")), timed_gates(folder))
            elif part == "dist" and path.name == "task.yaml":  # its comments may change
                yield name, YAML(typ="safe").load(path)
            else:
                yield name, path.read_bytes()


def timed_gates(folder: Path) -> set[str]:
    """Names of the gates over times and memory, whose values no two runs have in common."""
    gates = YAML(typ="safe").load(folder / "gates.yaml")["gates"]
    return {"rounds agree"} | {g["name"] for g in gates if any(word in g["metric"] for word in MEASURED)}


def facts(value: Any, timed: set[str]) -> Any:
    """A report without what is measured or said; of a gate over times, whether it passed."""
    if isinstance(value, dict):
        left = {k: v for k, v in value.items() if not k.startswith(MEASURED) and k not in SAID}
        if value.get("name") in timed:
            left.pop("value", None)
        return {k: facts(v, timed) for k, v in left.items()}
    return [facts(v, timed) for v in value] if isinstance(value, list) else value


def compare(before: Path, after: Path) -> tuple[int, list[str]]:
    """How many files and reports were compared, and which differ."""
    old, new = dict(contents(before)), dict(contents(after))
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return len({*old, *new}), changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="+", help="two commits; with --projects, folders: before and after, once or more")
    parser.add_argument("--projects", action="store_true", help="compare projects that have run")
    options = parser.parse_args()
    if len(options.sides) % 2 or not (options.projects or len(options.sides) == 2):
        parser.error("give a BEFORE and an AFTER")
    if options.projects:
        places = [Path(os.path.abspath(side)) for side in options.sides]
        pairs = list(zip(places[::2], places[1::2], strict=True))
    else:
        before, after = options.sides
        pairs = [(run_project(before, p, "before"), run_project(after, p, "after")) for p in PROFILES]
    compared, changed = 0, []
    for old, new in pairs:
        count, differing = compare(old, new)
        profile = json.loads((new / "reports" / "ladder.json").read_text(encoding="utf-8"))["profile"]
        print(f"{profile}: {count} files and reports compared, {len(differing)} differ")
        print("".join(f"  {name}\n" for name in differing), end="")
        compared, changed = compared + count, changed + differing
    print("\nMay differ:\n" + "\n".join(f"  {name}: {why}" for name, why in PERMITTED.items()))
    figures = {"compared": compared, "hashes_changed": len(changed)}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")
    print("\n".join(f"{name:16s} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
