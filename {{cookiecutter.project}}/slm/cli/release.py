"""`slm release`: from the judged package to a release, and back."""

from pathlib import Path
from typing import Annotated

import typer

from slm.cli.root import Panel, Tag, group

release_commands = group("release", Panel.RELEASE, "Seal, release, verify and roll back a model.")


@release_commands.command("seal")
def release_seal() -> None:
    """Put the judged package with its facts and dvc.lock into sealed/.

    Reads dist/, models/, predictions/, reports/ and dvc.lock. Writes sealed/. Takes seconds. Run `slm gate`
    first.
    """
    from slm.ci.seal import seal_package

    seal_package()


@release_commands.command("unseal")
def release_unseal(
    folder: Annotated[Path, typer.Argument(help="Folder of a sealed package.")] = Path("sealed"),
) -> None:
    """Put a sealed package back in place, if every byte is as it was sealed.

    Reads the sealed package. Writes dist/, predictions/, reports/ and dvc.lock, over what is there. Takes
    seconds. It is an error if this commit's files did not make those bytes.
    """
    from slm.ci.seal import unseal

    unseal(folder)


@release_commands.command("card")
def release_card() -> None:
    """Write model card, bill of materials (SBOM) and checksums of the package into release/.

    Reads dist/ and reports/verdict.json: run `slm gate` first. Writes release/. Takes a second.
    """
    from slm.ci.seal import write_card

    write_card()


@release_commands.command("verify")
def release_verify(tag: Tag) -> None:
    """Download a release and check every byte against its seal and the tagged commit.

    Reads the release on GitHub, and the tagged commit. Writes released/TAG/. Takes as long as the download.
    Where GitHub's command `gh` is installed, it checks the attestation too.
    """
    from slm.ci.seal import verify

    verify(tag)


@release_commands.command("fetch")
def release_fetch() -> None:
    """Download the released model and its predictions into the cache, and check them.

    Reads released.json, and the release on GitHub. Writes .cache/released/. Takes as long as the download.
    What is there already is not downloaded again.
    """
    from slm.verdict.released import fetch_released

    fetch_released()


@release_commands.command("name")
def release_name(
    folder: Annotated[Path, typer.Argument(help="Folder of the sealed package.")], tag: Tag
) -> None:
    """Name a sealed package in released.json as the release TAG: what later models are compared with.

    Reads the sealed package, released.json and the tag in Git. Writes released.json; commit it. Takes
    seconds. It also becomes the best release if it is clearly better than that.
    """
    from slm.verdict.released import name

    name(folder, tag)


@release_commands.command("rollback")
def release_rollback(tag: Tag) -> None:
    """Name an earlier release in released.json again.

    Reads that release's facts on GitHub, and the tag in Git. Writes released.json. Takes seconds. Commit it
    and open a pull request: that is all.
    """
    from slm.verdict.released import rollback

    rollback(tag)


@release_commands.command("image")
def release_image(
    image: Annotated[str, typer.Argument(help="Name and tag, such as ghcr.io/owner/name:v1.")],
) -> None:
    """Build the container image of sealed/, start it and ask it once. Needs docker.

    Reads sealed/ and Dockerfile. Writes image/, and the image into docker. Takes a few minutes. Pushes the
    image if the variable REGISTRY_TOKEN is set.
    """
    from slm.ci.container import make_image

    make_image(image)


@release_commands.command("sign")
def release_sign() -> None:
    """Sign sealed/ with the identity of the workflow that runs this (sigstore).

    Reads sealed/ and requirements/signing.txt. Writes release/sealed.sig, and installs the signing program
    into .signing/. Takes as long as that installation. Works in a workflow alone.
    """
    from slm.ci.steps import sign

    sign()
