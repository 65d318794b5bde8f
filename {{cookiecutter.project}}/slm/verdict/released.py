"""The released models that released.json names: their packages and predictions, fetched once and refused if
changed. Standard library only.

    python3 -m slm.verdict.released      fetches what is not here yet; the same as `slm release fetch`

An address is a path in this repository, or `release:TAG/NAME`: the asset NAME of a GitHub release.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from slm import github
from slm.errors import UserError, exit_on_user_error
from slm.files import read_json, read_jsonl, replacing, sha256_file, unpack, write_json

RELEASED = Path("released.json")
RELEASED_CACHE = Path(".cache/released")
SEALED = Path("sealed")
SEAL = "SEAL.json"
Entry = dict[str, Any]


def fetch(entry: Entry, what: str) -> Path:
    """The package or the predictions of an entry; its hash must be the one that released.json names."""
    try:
        address, sha256 = entry[what], entry[f"{what}_sha256"]
    except KeyError as error:
        raise UserError(
            f"{RELEASED}: the entry of {entry.get('tag')} has no {error}; `slm release rollback TAG` writes "
            "a whole one"
        ) from None
    path = RELEASED_CACHE / sha256
    if path.exists() and sha256_file(path) != sha256:
        path.unlink()  # a cache says what to fetch, and not what is true
    if not path.exists():
        with replacing(path) as temporary:
            if address.startswith("release:"):
                tag, _, name = address.removeprefix("release:").partition("/")
                github.download_asset(tag, name, temporary)
            elif Path(address).exists():
                shutil.copyfile(address, temporary)
            else:
                raise UserError(f"{RELEASED}: {address} is not here; run `slm pull` or correct the address")
            found = sha256_file(temporary)
            if found != sha256:
                raise UserError(
                    f"{address}: sha256 is {found}, but {RELEASED} says {sha256}; restore the released file"
                )
    return path


def predictions_of(entry: Entry | None) -> list[Entry] | None:
    """Prediction rows of a released model (without their header); None where nothing is released."""
    return None if entry is None else read_jsonl(fetch(entry, "predictions"))[1:]


def test_set_of(entry: Entry) -> str:
    """Hash of the test set that the released model's predictions answer."""
    return read_jsonl(fetch(entry, "predictions"))[0]["test_sha256"]


def model_of(entry: Entry) -> Path:
    """The model folder of a released package."""
    archive = fetch(entry, "package")
    folder = archive.with_name(f"{archive.name}-model")
    if not folder.exists():
        with replacing(folder) as temporary, tempfile.TemporaryDirectory() as scratch:
            unpack(archive, Path(scratch), github.LARGEST_ASSET_MB)
            (model,) = Path(scratch).glob("*/model")
            shutil.copytree(model, temporary)
    return folder


def read_seal(folder: Path) -> Entry:
    """SEAL.json of a folder, once every file is what it says and no file is beside it."""
    path = folder / SEAL
    if not path.exists():
        raise UserError(f"{path}: no such file; is {folder} a sealed package?")
    seal = read_json(path)
    hold_manifest(folder, SEAL, seal["files"], "sealed")
    return seal


def hold_manifest(folder: Path, manifest: str, files: dict[str, str], done: str) -> None:
    """Every file of a folder is the one that its manifest names, and none is beside.

    Args:
        files: SHA-256 by name.
        done: what was done to them, for the message: sealed, offered.

    Raises:
        UserError: names the first that is not.
    """
    found = {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.name != manifest}
    for file in sorted({*found, *files}):
        if found.get(file) != files.get(file):
            what = f"is not the file that was {done}"
            if file not in found:
                what = "is missing"
            elif file not in files:
                what = f"was not {done}"
            raise UserError(
                f"{folder / file} {what}; take the package again, or make it anew (`slm repro && slm "
                "release seal`)"
            )


def entry_of(seal: Entry, predictions: Path, tag: str) -> Entry:
    commit = subprocess.run(
        ["git", "rev-list", "-n", "1", tag, "--"], capture_output=True, text=True, check=False
    )
    if commit.returncode:
        raise UserError(f"{tag} is no tag here: run `git fetch --tags`, or correct the name")
    return {
        "tag": tag,
        "revision": commit.stdout.strip(),
        "weights_sha256": seal["weights_sha256"],
        "folder_sha256": seal["folder_sha256"],
        "test_sha256": read_jsonl(predictions)[0]["test_sha256"],
        "package": f"release:{tag}/{seal['name']}.tar.gz",
        "package_sha256": seal["files"][f"{seal['name']}.tar.gz"],
        "predictions": f"release:{tag}/predictions.jsonl",
        "predictions_sha256": seal["files"]["predictions.jsonl"],
        "figures": seal["figures"],
    }


def name(folder: Path, tag: str) -> None:
    """The release becomes what candidates are compared with; also the best so far if it is clearly better
    than that on its test set.

    Clearly better means that the lower end of its interval is above the other's score. Otherwise the one
    that scored best by chance would become the best of many equal releases, and refuse its equals. Releases
    may be named in another order than they were tagged in: one of an earlier commit takes nothing back.
    """
    released = read_json(RELEASED)
    new, old, best = (
        entry_of(read_seal(folder), folder / "predictions.jsonl", tag),
        released.get("released"),
        released.get("best"),
    )
    better = (
        best is None
        or best["test_sha256"] != new["test_sha256"]
        or new["figures"]["score_low"] > best["figures"]["score"]
    )
    late = (
        old is not None
        and old["revision"] != new["revision"]
        and comes_before(new["revision"], old["revision"])
    )
    if late:
        print(
            f"{RELEASED}: {old['tag']} is of a later commit than {tag} and stays the released model; `slm "
            f"release rollback {tag}` goes back"
        )
    write_json(RELEASED, {"released": old if late else new, "best": new if better else best})
    print(f"{RELEASED}: released is {old['tag'] if late else tag}, best is {tag if better else best['tag']}")


def comes_before(earlier: str, later: str) -> bool:
    return (
        subprocess.run(
            ["git", "merge-base", "--is-ancestor", earlier, later, "--"], capture_output=True, check=False
        ).returncode
        == 0
    )


def rollback(tag: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for asset in (SEAL, "predictions.jsonl"):
            github.download_asset(tag, asset, Path(scratch) / asset)
        seal = json.loads((Path(scratch) / SEAL).read_text(encoding="utf-8"))
        new = entry_of(seal, Path(scratch) / "predictions.jsonl", tag)
    write_json(RELEASED, read_json(RELEASED) | {"released": new})
    print(
        f"{RELEASED}: released is {tag} again; commit it on a branch and open a pull request: that is the "
        "whole rollback"
    )


def fetch_released() -> None:
    """Fetch the packages and predictions that released.json names, what is not here yet, and check them."""
    for which, found in read_json(RELEASED).items():
        if found:
            test_set_of(found)
            print(f"{which}: {found['tag']}, {model_of(found)}")


@exit_on_user_error()
def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    fetch_released()


if __name__ == "__main__":
    main()
