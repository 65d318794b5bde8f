"""A sealed package in a checkout, and a release that is verified: its bytes, who sealed it, who signed it."""

import shutil
import tempfile
from pathlib import Path

from slm import github
from slm.ci.signing import verify_attestation, verify_signature
from slm.dvc_cli import dvc_status, out_of_lock
from slm.errors import UserError
from slm.export.packaging import with_waivers
from slm.files import read_json, replacing, unpack, write_text
from slm.git import git
from slm.verdict.released import SEAL, read_seal
from slm.verdict.rows import Verdict, waivers_of


def open_seal(folder: Path, checkout: Path) -> None:
    """Put the sealed bytes in place. DVC then holds every byte, and every input that they were made from,
    against the sealed lock.
    """
    seal = read_seal(folder)
    shutil.copyfile(folder / "dvc.lock", checkout / "dvc.lock")
    with replacing(checkout / "dist") as dist:
        dist.mkdir()
        shutil.copyfile(folder / f"{seal['name']}.tar.gz", dist / f"{seal['name']}.tar.gz")
        unpack(folder / f"{seal['name']}.tar.gz", dist, github.LARGEST_ASSET_MB)
    with tempfile.TemporaryDirectory() as scratch:
        unpack(folder / "facts.tar.gz", Path(scratch), github.LARGEST_ASSET_MB)
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


def verify_release(tag: str, public_key: Path | None) -> None:
    """Fetch what a release holds. Refuse a byte that is not the sealed one or was not made from the tagged
    commit, a seal that main's workflow did not attest, and a signature that is not the release's.

    Args:
        public_key: of whoever signs with a key of their own; None: the release's workflow signed.

    Raises:
        UserError: names what is wrong, or what could not be checked.
    """
    folder, signature = Path("released") / tag, Path("released") / f"{tag}.sig"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    github.download_asset(tag, SEAL, folder / SEAL)
    commit = git("rev-list", "-n", "1", tag, "--").strip()
    verify_attestation(folder / SEAL, commit)
    for name in read_json(folder / SEAL)["files"]:
        github.download_asset(tag, Path(name).name, folder / Path(name).name)
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        git("clone", "--quiet", "--shared", ".", str(clone))
        git("-C", str(clone), "checkout", "--quiet", tag, "--")
        open_seal(folder, clone)
    if read_json(folder / SEAL)["commit"] != commit:
        raise UserError(f"{folder / SEAL} is the seal of another commit than {tag}; do not use this release")
    print(f"{folder}: every byte is as it was sealed, and made from what {tag} holds")
    github.download_asset(tag, "sealed.sig", signature)
    verify_signature(folder, signature, tag, public_key)
    print(f"{tag}: main's workflow attested the seal, and the signature is the release's")
