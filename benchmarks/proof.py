"""Did moving code change what it makes? Two commits are baked on one machine, run, and compared file by file and figure by figure.

    make bench-proof BEFORE=… AFTER=…                        (an hour and a half on two cores)
    python -m benchmarks.proof [BEFORE] [AFTER] [--profiles quick,default]                   (the same)
    python -m benchmarks.proof --before-project DIR --after-project DIR             (two finished projects; seconds)

BEFORE is the last commit before the first move with one repair (REPAIRED), AFTER is HEAD; what is not committed is not in it. Each is
cloned into
build/proof/before and build/proof/after and baked there as build/my-slm, with an environment of its own; then, for each profile,
`make repro` and `make gate` in both. A run that was interrupted goes on: what a commit made with a profile is kept in
build/proof/COMMIT-PROFILE.json. A finished project in place of a commit is compared with the profile that it holds. Both must come
from one machine, since another processor gives other floats.

Writes build/bench/proof.json and prints the same as a table: what is the same, what differs and may (PERMITTED), what has changed.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.demo import KEPT
from tests.bake import TEMPLATE

FIRST = "43d9da1"
OUTPUT, WORK = TEMPLATE / "build" / "bench" / "proof.json", TEMPLATE / "build" / "proof"
WEIGHTS = {".safetensors", ".onnx", ".data", ".bin", ".gguf"}
TIMED = re.compile("_ms|tokens_per_s|rss_mb")
# What may differ, by the beginning of its name, and why.
PERMITTED = {
    "package: README.md": "the model card is prose, and states measured times",
    "package: archive": "the archive holds the model card",
    "package: task.yaml as written": "comments are prose; as it is read it must be the same",
    "verdict text": "names and reasons of gates are prose; severity, value, limit and outcome must be the same",
    "verdict time": "time and memory are measured anew in every run",
    "revision": "each bake is a first commit of its own, with its own date",
}
# One repair that BEFORE gets as well: the library gives bytes in another order in every process, so the float sum over their rows
# differed in its last bit, and no two runs of one commit had equal weights.
REPAIRED = ("slm/vocabulary.py", "for c in ByteLevel.alphabet()", "for c in sorted(ByteLevel.alphabet())")
Facts = dict[str, Any]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of(folder: Path, suffixes: set[str] | None = None) -> str:
    """Over names and bytes of a folder's files."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and (suffixes is None or p.suffix in suffixes))
    return sha256("".join(f"{sha256(p.read_bytes())}  {p.relative_to(folder).as_posix()}\n" for p in paths).encode())


def as_read(path: Path) -> str:
    return sha256(json.dumps(YAML(typ="safe").load(path.read_text(encoding="utf-8")), sort_keys=True, default=str).encode())


def of_files(project: Path) -> Facts:
    facts = {}
    for folder in sorted((project / "models").iterdir()):
        facts[f"models/{folder.name}: weights"] = sha256_of(folder, WEIGHTS)
        facts[f"models/{folder.name}: folder"] = sha256_of(folder)
    for pattern in (
        "predictions/*.jsonl", "data/*.jsonl", "reports/quality/*.json", "reports/convert/*.json", "reports/quantize/*.json",
        "reports/curves/*.json", "reports/data.json", "reports/synthetic.json", "reports/teach.json", "reports/distill.json",
        "reports/finetune.json",
    ):  # fmt: skip
        for path in sorted(project.glob(pattern)):
            facts[path.relative_to(project).as_posix()] = sha256(path.read_bytes())
    with zipfile.ZipFile(project / "data" / "logprobs.npz") as arrays:
        for name in sorted(arrays.namelist()):
            facts[f"data/logprobs.npz: {name}"] = sha256(arrays.read(name))
    return facts


def of_verdict(project: Path) -> Facts:
    """Its figures. Gates are told apart by their place, since a name is prose."""
    verdict = json.loads((project / "reports" / "verdict.json").read_text(encoding="utf-8"))
    contract = YAML(typ="safe").load((project / "gates.yaml").read_text(encoding="utf-8"))
    timed = {gate["name"] for gate in contract["gates"] if TIMED.search(json.dumps(gate))} | {"rounds agree"}
    facts: Facts = {"revision of the project": verdict["candidate"]["revision"], "verdict: gates": len(verdict["gates"])}
    for hashed in ("weights_sha256", "folder_sha256"):
        facts[f"verdict: candidate {hashed}"] = verdict["candidate"][hashed]
    for number, gate in enumerate(verdict["gates"]):
        facts[f"verdict: gate {number}, severity and limit"] = [gate["severity"], gate["limit"]]
        kind = "verdict time" if gate["name"] in timed else "verdict"
        facts[f"{kind}: gate {number}, value and outcome"] = [gate["value"], gate["passed"], gate["waived"]]
        facts[f"verdict text: gate {number}"] = [gate["name"], gate["why"]]
    ladder = json.loads((project / "reports" / "ladder.json").read_text(encoding="utf-8"))
    for rung in ladder["rungs"]:
        facts[f"ladder: {rung['name']}"] = {k: v for k, v in rung.items() if not TIMED.search(k)}
    cost = json.loads((project / "reports" / "cost.json").read_text(encoding="utf-8"))
    for name, row in cost["rungs"].items():
        facts[f"cost: {name}, what was timed"] = [row["folder_sha256"], row["weights_mb"]]
    return facts


def of_package(project: Path) -> Facts:
    (folder,) = (path for path in (project / "dist").iterdir() if path.is_dir())
    sums = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {
        "package: files": sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()),
        "package: model": sha256_of(folder / "model"),
        "package: sbom.cdx.json": sha256((folder / "sbom.cdx.json").read_bytes()),
        "package: checksums but of the prose": [line for line in sums if not line.endswith(("  README.md", "  task.yaml"))],
        "package: task.yaml as read": as_read(folder / "task.yaml"),
        "package: task.yaml as written": sha256((folder / "task.yaml").read_bytes()),
        "package: README.md": sha256((folder / "README.md").read_bytes()),
        "package: archive": sha256((project / "dist" / f"{folder.name}.tar.gz").read_bytes()),
    }


def facts_of(project: Path) -> dict[str, Any]:
    """What a finished project made, with its profile and machine."""
    ladder = json.loads((project / "reports" / "ladder.json").read_text(encoding="utf-8"))
    facts = of_files(project) | of_verdict(project) | of_package(project)
    return {"profile": ladder["profile"], "machine": ladder["machine"], "facts": facts}


def compare(before: Facts, after: Facts) -> tuple[list[str], dict[str, str], list[str]]:
    """Names of what is the same, of what differs and may (with the reason), and of what has changed or is on one side alone."""
    same, permitted, changed = [], {}, []
    for name in sorted(before.keys() | after.keys()):
        why = next((why for start, why in PERMITTED.items() if name.startswith(start)), None)
        if name in before and name in after and before[name] == after[name]:
            same.append(name)
        elif why and name in before and name in after:
            permitted[name] = why
        else:
            changed.append(name)
    return same, permitted, changed


def run(command: list[str], folder: Path, check: bool = True) -> None:
    print(f"{folder}: {' '.join(command)}", file=sys.stderr, flush=True)
    environment = {k: v for k, v in os.environ.items() if re.fullmatch(f"{KEPT}|HOME", k, re.IGNORECASE)}
    subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=check)


def bake(commit: str, side: str) -> Path:
    clone = WORK / side
    project = clone / "build" / "my-slm"
    marker = clone / ".commit"
    if not marker.exists() or marker.read_text(encoding="utf-8") != commit:
        if clone.exists():
            sys.exit(f"{clone} is of another commit: delete it first")
        WORK.mkdir(parents=True, exist_ok=True)
        run(["git", "clone", "--quiet", "--no-checkout", str(TEMPLATE), str(clone)], TEMPLATE)
        run(["git", "checkout", "--quiet", "--detach", commit], clone)
        run([sys.executable, "-m", "tests.bake", "build/my-slm"], clone)
        name, old, new = REPAIRED
        if (project / name).exists():
            text = (project / name).read_text(encoding="utf-8")
            (project / name).write_text(text.replace(old, new), encoding="utf-8")
        marker.write_text(commit, encoding="utf-8")
    return project


def make(commit: str, side: str, profile: str) -> dict[str, Any]:
    """Facts of a commit with a profile, from where they are kept or from a run."""
    kept = WORK / f"{commit[:12]}-{profile}.json"
    if not kept.exists():
        project = bake(commit, side)
        run(["make", "setup"], project)
        run(["git", "checkout", "params.yaml"], project)
        if profile != "default":
            run(["make", "profile", f"NAME={profile}"], project)
        run(["make", "repro"], project)
        (project / "reports" / "verdict.json").unlink(missing_ok=True)
        run(["make", "gate"], project, check=False)  # a refused model is compared as well
        kept.write_text(json.dumps(facts_of(project), indent=2) + "\n", encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", default=FIRST)
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--profiles", default="quick,default", help="in this order, with a comma between")
    parser.add_argument("--before-project", type=Path, metavar="DIR", help="a finished project in place of BEFORE")
    parser.add_argument("--after-project", type=Path, metavar="DIR", help="a finished project in place of AFTER")
    given = parser.parse_args()

    def commit(name: str) -> str:
        done = subprocess.run(["git", "rev-parse", f"{name}^{{commit}}"], cwd=TEMPLATE, capture_output=True, text=True, check=False)
        return done.stdout.strip() or sys.exit(f"{name} is no commit of this repository")

    folders = {"before": given.before_project, "after": given.after_project}
    held = {side: facts_of(folder) for side, folder in folders.items() if folder}
    profiles = sorted({facts["profile"] for facts in held.values()}) or given.profiles.split(",")
    if len(held) == 2 and len(profiles) > 1:
        sys.exit(f"the two projects hold different profiles: {', '.join(profiles)}")
    commits = {side: commit(getattr(given, side)) for side in folders if side not in held}
    sources = {side: str(folders[side].resolve() if folders[side] else commits[side]) for side in folders}
    if sources["before"] == sources["after"]:
        sys.exit("before and after are the same: that proves nothing")

    results, total = {}, Counter[str]()
    for profile in profiles:
        before, after = (held.get(side) or make(commits[side], side, profile) for side in folders)
        if before["machine"] != after["machine"]:
            sys.exit(f"not one machine: {before['machine']} and {after['machine']}")
        same, permitted, changed = compare(before["facts"], after["facts"])
        results[profile] = {"same": same, "permitted": permitted, "changed": changed}
        total.update(compared=len(same) + len(permitted) + len(changed), permitted=len(permitted), changed=len(changed))
        for name in same:
            print(f"{profile:10s}{'same':12s}{name}")
        for name, why in permitted.items():
            print(f"{profile:10s}{'may differ':12s}{name}: {why}")
        for name in changed:
            print(f"{profile:10s}{'CHANGED':12s}{name}: {before['facts'].get(name)} -> {after['facts'].get(name)}")

    figures = {"hashes_changed": total["changed"], "compared": total["compared"], "permitted": total["permitted"]}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": figures, "of": sources, "profiles": results}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:36s}{value:10d}")


if __name__ == "__main__":
    main()
