"""The sealed package: the bytes that were judged, the facts that they were judged by, and the lock that says
what they were made from.
"""

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from slm import github
from slm.config.params import load_params
from slm.dvc_cli import dvc_status, out_of_lock
from slm.errors import UserError
from slm.export.packaging import archive, with_waivers
from slm.files import (
    folder_mb,
    folder_sha256,
    read_json,
    replacing,
    sha256_file,
    weights_sha256,
    write_json,
    write_text,
)
from slm.git import git
from slm.verdict.released import SEAL, SEALED, read_seal
from slm.verdict.rows import Verdict, waivers_of

LARGEST_REFERENCE_MB = 1800  # a release's asset may have 2 GiB
SEALED_FIGURES = (
    "score",
    "score_low",
    "score_high",
    "n",
    "valid_rate",
    "request_ms_p50",
    "rss_mb",
    "weights_mb",
)


def reference_of(shipped: str) -> Path | None:
    """The rung that a device times beside the package: times of two machines are never compared, but their
    ratios can be.
    """
    folder = Path("models") / ("int4" if shipped == "int8" else "int8")
    return folder if folder.exists() and folder_mb(folder) < LARGEST_REFERENCE_MB else None


def seal_key(lock: str) -> str:
    """Name of the package that a dvc.lock speaks of: the same bytes, the same name."""
    found = re.search(r"- path: dist\n\s+hash: md5\n\s+md5: ([0-9a-f]{32})", lock)
    if not found:
        raise UserError("dvc.lock names no package: run `slm repro` and commit dvc.lock")
    return found[1][:16]


def seal_package() -> None:
    """Put dist/, predictions/, reports/, dvc.lock and a rung to time beside into sealed/."""
    params = load_params()
    name, shipped = params.package.name, params.package.variant
    ladder, verdict = read_json(Path("reports/ladder.json")), Path("reports/verdict.json")
    row = next(r for r in ladder["rungs"] if r["name"] == shipped)
    with replacing(SEALED) as folder, tempfile.TemporaryDirectory() as scratch:
        folder.mkdir()
        shutil.copyfile(Path("dist") / f"{name}.tar.gz", folder / f"{name}.tar.gz")
        shutil.copyfile(Path("predictions") / f"{shipped}.jsonl", folder / "predictions.jsonl")
        shutil.copyfile("dvc.lock", folder / "dvc.lock")
        facts = Path(scratch) / "facts"
        for part in ("reports", "predictions"):
            shutil.copytree(
                part,
                facts / part,
                ignore=shutil.ignore_patterns("report.html", "verdict.*", "plots", "seeds*"),
            )
        archive(facts, folder / "facts.tar.gz")
        reference = reference_of(shipped)
        if reference:
            archive(reference, folder / "reference.tar.gz")
        other = next((r for r in ladder["rungs"] if reference and r["name"] == reference.name), None)
        write_json(
            folder / SEAL,
            {
                "name": name,
                "variant": shipped,
                "key": seal_key(Path("dvc.lock").read_text(encoding="utf-8")),
                "passed": verdict.exists() and read_json(verdict)["passed"],
                "weights_sha256": weights_sha256(Path("dist") / name / "model"),
                "folder_sha256": folder_sha256(Path("dist") / name / "model"),
                "figures": {k: row[k] for k in SEALED_FIGURES},
                "reference": other
                and {"rung": other["name"], "share": row["request_ms_p50"] / other["request_ms_p50"]},
                "files": {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.name != SEAL},
            },
        )
    if subprocess.run(["git", "diff", "--quiet", "--", "dvc.lock"], check=False).returncode:
        print(
            "dvc.lock of this commit names other bytes: these were made again here. They are sealed with "
            "the lock that made them"
        )
    print(f"{SEALED}: sealed {name} ({read_json(SEALED / SEAL)['folder_sha256'][:12]})")


def open_seal(folder: Path, checkout: Path) -> None:
    """Put the sealed bytes in place. DVC then holds every byte, and every input that they were made from,
    against the sealed lock.
    """
    seal = read_seal(folder)
    shutil.copyfile(folder / "dvc.lock", checkout / "dvc.lock")
    with replacing(checkout / "dist") as dist:
        dist.mkdir()
        shutil.copyfile(folder / f"{seal['name']}.tar.gz", dist / f"{seal['name']}.tar.gz")
        with tarfile.open(folder / f"{seal['name']}.tar.gz") as tar:
            tar.extractall(dist, filter="data")
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(folder / "facts.tar.gz") as tar:
        tar.extractall(scratch, filter="data")
        for part in ("reports", "predictions"):
            with replacing(checkout / part) as target:
                shutil.copytree(Path(scratch) / "facts" / part, target)
    for stage_name, why in out_of_lock(dvc_status(checkout)).items():
        raise UserError(
            f"the sealed bytes were not made from what this commit holds: {stage_name}: {'; '.join(why)}"
        )


def unseal(folder: Path) -> None:
    """Put a sealed package into this checkout, if every byte is as sealed and made from what is here."""
    open_seal(folder, Path())
    print(f"{folder}: every byte is as it was sealed, and made from what this commit holds")


def write_card() -> None:
    """Model card, bill of materials and checksums into release/: what a release shows beside the sealed
    files.

    The card names the waivers that the verdict rests on.
    """
    verdict = Path("reports/verdict.json")
    if not verdict.exists():
        raise UserError(
            f"{verdict}: no such file; run `slm gate` first: the release's card says which gates were waived"
        )
    (source,) = (p for p in Path("dist").iterdir() if p.is_dir())
    with replacing(Path("release")) as folder:
        folder.mkdir()
        for name in ("README.md", "sbom.cdx.json", "SHA256SUMS"):
            shutil.copyfile(source / name, folder / name)
        card = (folder / "README.md").read_text(encoding="utf-8")
        write_text(
            folder / "README.md", with_waivers(card, waivers_of(Verdict.from_json(read_json(verdict))))
        )


def verify(tag: str) -> None:
    """Fetch what a release holds, and refuse a byte that is not the sealed one or was not made from the
    tagged commit.
    """
    folder = Path("released") / tag
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    github.download_asset(tag, SEAL, folder / SEAL)
    for name in json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"]:
        github.download_asset(tag, Path(name).name, folder / Path(name).name)
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        git("clone", "--quiet", "--shared", ".", str(clone))
        git("-C", str(clone), "checkout", "--quiet", tag, "--")
        open_seal(folder, clone)
    print(f"{folder}: every byte is as it was sealed, and made from what {tag} holds")
    if shutil.which("gh"):
        subprocess.run(
            ["gh", "attestation", "verify", str(folder / SEAL), "--repo", github.repository()], check=True
        )
    else:
        print("its attestation was not checked: that needs GitHub's command line tool, gh")
