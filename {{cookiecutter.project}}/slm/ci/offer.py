"""What a run has made, offered to be sealed: the package, its predictions, its reports, and the lock that
says what they were made from. All of it is a claim. `slm release recheck` finds out what is true.
"""

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from slm.ci.seal import MANIFEST, OFFERED, PREDICTIONS_FILE, Offer, Reference
from slm.config.params import load_params
from slm.export.packaging import archive
from slm.files import folder_mb, folder_sha256, read_json, replacing, sha256_file, weights_sha256, write_json
from slm.git import differing

LARGEST_REFERENCE_MB = 1800  # a release's asset may have 2 GiB


def reference_of(shipped: str) -> Path | None:
    """The rung that a device times beside the package: times of two machines are never compared, but their
    ratios can be.
    """
    folder = Path("models") / ("int4" if shipped == "int8" else "int8")
    return folder if folder.exists() and folder_mb(folder) < LARGEST_REFERENCE_MB else None


def offer_package() -> None:
    """Put dist/, predictions/, reports/, dvc.lock and a rung to time beside into offered/."""
    params = load_params()
    name, shipped = params.package.name, params.package.variant
    ladder, verdict = read_json(Path("reports/ladder.json")), Path("reports/verdict.json")
    row = next(r for r in ladder["rungs"] if r["name"] == shipped)
    reference = reference_of(shipped)
    other = next((r for r in ladder["rungs"] if reference and r["name"] == reference.name), None)
    with replacing(OFFERED) as folder, tempfile.TemporaryDirectory() as scratch:
        folder.mkdir()
        shutil.copyfile(Path("dist") / f"{name}.tar.gz", folder / f"{name}.tar.gz")
        shutil.copyfile(Path("predictions") / f"{shipped}.jsonl", folder / PREDICTIONS_FILE)
        shutil.copyfile("dvc.lock", folder / "dvc.lock")
        facts = Path(scratch) / "facts"
        for part in ("reports", "predictions"):
            ignored = shutil.ignore_patterns("report.html", "verdict.*", "plots", "seeds*")
            shutil.copytree(part, facts / part, ignore=ignored)
        archive(facts, folder / "facts.tar.gz")
        if reference:
            archive(reference, folder / "reference.tar.gz")
        offer = Offer(
            name=name,
            variant=shipped,
            passed=verdict.exists() and read_json(verdict)["passed"],
            weights_sha256=weights_sha256(Path("dist") / name / "model"),
            folder_sha256=folder_sha256(Path("dist") / name / "model"),
            reference=other and Reference(other["name"], row["request_ms_p50"] / other["request_ms_p50"]),
            files={p.name: sha256_file(p) for p in sorted(folder.iterdir())},
        )
        write_json(folder / MANIFEST, asdict(offer))
    if differing("HEAD", None, "dvc.lock"):
        print(
            "dvc.lock of this commit names other bytes: these were made again here. They are offered with "
            "the lock that made them"
        )
    print(f"{OFFERED}: {name} ({offer.folder_sha256[:12]})")
