"""What the third-party actions do, on the host, with folders in place of GitHub's stores."""

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def value(name: str) -> str:
    return os.environ.get(f"INPUT_{name}", "")


def output(name: str, text: str) -> None:
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as stream:
        stream.write(f"{name}={text}\n")


def clone(source: Path, target: Path) -> None:
    """A copy that shares its bytes, as fast as a link and as separate as a cache."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", "--link", str(source), str(target)], check=True)


def restore() -> None:
    store, path = Path(os.environ["ACT_CACHE"]), Path(value("PATH"))
    found = store / value("KEY") if (store / value("KEY")).exists() else None
    if found is None:
        for prefix in value("PREFIXES").split():
            hits = sorted(store.glob(f"{glob.escape(prefix)}*"), key=lambda p: p.stat().st_mtime)
            found = hits[-1] if hits else None
    print(f"cache {value('KEY')}: {found.name if found else 'not found'}")
    output("cache-hit", str(found is not None and found.name == value("KEY")).lower() if found else "")
    if found is None:
        sys.exit(value("MUST") == "true")
    if found.is_symlink():  # an environment is too large to be copied in each job
        path.symlink_to(found.resolve())
    else:
        shutil.rmtree(path, ignore_errors=True)
        clone(found, path)


def save() -> None:
    target = Path(os.environ["ACT_CACHE"]) / value("KEY")
    if target.exists():
        print(f"cache {value('KEY')} is there already")
    else:
        clone(Path(value("PATH")), target)


def upload() -> None:
    bases, files = [], []
    for pattern in value("PATH").split():
        for hit in sorted(glob.glob(pattern)):
            path = Path(hit)
            bases.append(path if path.is_dir() else path.parent)
            files += [p for p in ([path] if path.is_file() else sorted(path.rglob("*"))) if p.is_file()]
    if not files:
        print(f"no files were found with the path {value('PATH')}")
        sys.exit(value("NOTHING") == "error")
    base = Path(os.path.commonpath([str(b.resolve()) for b in bases]))
    if len(value("PATH").split()) == 1 and "*" in value("PATH"):  # then the root is what stands before the first wildcard
        base = Path(value("PATH").split("*")[0]).resolve()
    target = Path(os.environ["ACT_ARTIFACTS"]) / os.environ["GITHUB_RUN_ID"] / f"{value('NAME')}.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and value("OVERWRITE") != "true":
        sys.exit(f"409: an artifact with this name already exists: {value('NAME')}")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for path in files:
            zipped.write(path, path.resolve().relative_to(base))


def download() -> None:
    run = Path(os.environ["ACT_ARTIFACTS"]) / (value("RUN") or os.environ["GITHUB_RUN_ID"])
    if value("PATTERN"):  # each into a folder of its own name; none is no error
        for source in run.glob(f"{value('PATTERN')}.zip"):
            with zipfile.ZipFile(source) as zipped:
                zipped.extractall(Path(value("PATH")) / source.stem)
        return
    source = run / f"{value('NAME')}.zip"
    if not source.exists():
        sys.exit(f"Unable to download artifact(s): Artifact not found for name: {value('NAME')}")
    with zipfile.ZipFile(source) as zipped:
        zipped.extractall(value("PATH"))


def attest() -> None:
    """Who says what of which bytes; tests/actions/gh reads it."""
    found = [Path(p) for p in glob.glob(value("PATH"))]
    said = {key: os.environ[f"GITHUB_{key.upper()}"] for key in ("workflow", "ref", "sha", "repository")}
    with Path(os.environ["ACT_ATTESTATIONS"]).open("a", encoding="utf-8") as stream:
        for path in found:
            stream.write(json.dumps({"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **said}) + "\n")
    print(f"attested {len(found)} files")
    sys.exit(not found)


if __name__ == "__main__":
    {"restore": restore, "save": save, "upload": upload, "download": download, "attest": attest}[sys.argv[1]]()
