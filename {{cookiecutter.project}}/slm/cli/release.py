"""`slm release`: from the judged package to a release, and back."""

from pathlib import Path
from typing import Annotated

import typer

from slm.cli.root import Panel, Tag, group

release_commands = group("release", Panel.RELEASE, "Seal, release, verify and roll back a model.")


@release_commands.command("offer")
def release_offer() -> None:
    """Put the package with its facts and dvc.lock into offered/, to be asked and sealed.

    Reads dist/, models/, predictions/, reports/ and dvc.lock. Writes offered/. Takes seconds. Run `slm gate`
    first.
    """
    from slm.ci.offer import offer_package

    offer_package()


@release_commands.command("recheck")
def release_recheck(
    exam: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Requests of the hidden exam, to be asked as well.")
    ] = None,
) -> None:
    """Ask the offered package the whole test set again, time it, and judge it; exit with 1 if it is refused.

    Reads offered/, task/, params.yaml, gates.yaml and released.json. Writes rechecked/. Takes about a minute
    for the default task. What the offer claims must be what is found.
    """
    from slm.ci.recheck import recheck
    from slm.verdict.rows import headline

    verdict = recheck(exam)
    print(headline(verdict))
    if not verdict.passed:
        raise typer.Exit(1)


@release_commands.command("seal")
def release_seal() -> None:
    """Offer the package, ask it again, and seal it: what main's workflow does in three jobs.

    Reads dist/, models/, predictions/, reports/, dvc.lock, task/ and the contract. Writes offered/,
    rechecked/ and sealed/. Takes about a minute for the default task. Run `slm gate` first.
    """
    from slm.ci.offer import offer_package
    from slm.ci.recheck import recheck
    from slm.ci.seal import seal_offer
    from slm.git import git

    offer_package()
    recheck()
    content = seal_offer(git("rev-parse", "HEAD").strip(), exam=False)
    print(f"sealed/: {content['name']}, {'passed' if content['passed'] else 'refused'}")


@release_commands.command("unseal")
def release_unseal(
    folder: Annotated[Path, typer.Argument(help="Folder of a sealed package.")] = Path("sealed"),
) -> None:
    """Put a sealed package back in place, if every byte is as it was sealed.

    Reads the sealed package. Writes dist/, predictions/, reports/ and dvc.lock, over what is there. Takes
    seconds. It is an error if this commit's files did not make those bytes.
    """
    from slm.ci.release import unseal

    unseal(folder)


@release_commands.command("card")
def release_card() -> None:
    """Write model card, bill of materials (SBOM) and checksums of the package into release/.

    Reads dist/ and reports/verdict.json: run `slm gate` first. Writes release/. Takes a second.
    """
    from slm.ci.release import write_card

    write_card()


@release_commands.command("verify")
def release_verify(
    tag: Tag,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public key of the signer. Without it, the release's workflow."),
    ] = None,
) -> None:
    """Download a release, and check its bytes, who sealed it and who signed it.

    Reads the release on GitHub, and the tagged commit. Writes released/TAG/, and installs the signing program
    into .signing/. Takes as long as the download. Needs GitHub's command `gh`. What cannot be checked is an
    error.
    """
    from slm.ci.release import verify_release

    verify_release(tag, public_key)


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
def release_sign(
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Private key. Without it, the identity of the workflow (sigstore)."
        ),
    ] = None,
) -> None:
    """Sign sealed/.

    Reads sealed/ and requirements/signing.txt. Writes release/sealed.sig, and installs the signing program
    into .signing/. Takes as long as that installation. Without a key it works in a workflow alone.
    """
    from slm.ci.signing import sign_folder
    from slm.ci.steps import SIGNATURE
    from slm.verdict.released import SEALED

    sign_folder(SEALED, SIGNATURE, key)
