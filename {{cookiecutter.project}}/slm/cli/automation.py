"""`slm ci` and `slm azureml`: the workflows' own steps. The jobs that install nothing call the same functions
by `python3 -I .github/steps.py slm.ci.steps` and `… slm.ci.azureml`.
"""

from pathlib import Path
from typing import Annotated

import typer

from slm.cli.root import Panel, Tag, group

ci_commands = group("ci", Panel.AUTOMATION, "Steps of the GitHub workflows.")
azureml_commands = group("azureml", Panel.AUTOMATION, "The training as a job on Azure ML.")


@ci_commands.command("pending")
def ci_pending() -> None:
    """Set the status of a pull request's new commit: there is no verdict yet.

    Reads the workflow's event. Writes the commit's status on GitHub. Takes seconds.
    """
    from slm.ci import steps

    steps.pending()


@ci_commands.command("find")
def ci_find() -> None:
    """Find the open pull request whose checks have just run.

    Reads the workflow's event, and the pull requests on GitHub. Writes the step's outputs number, head and
    base. Takes seconds. If no open pull request has this commit as its head, the output number is empty.
    """
    from slm.ci import steps

    steps.find()


@ci_commands.command("candidate")
def ci_candidate() -> None:
    """Download the package that the pull request's checks made, and unpack it into candidate/.

    Reads the workflow's event, and the run's artifacts on GitHub. Writes candidate/. Takes as long as the
    download. If there is no package to take, the step's output problem says why.
    """
    from slm.ci import steps

    steps.candidate()


@ci_commands.command("report")
def ci_report() -> None:
    """Post the verdict as the commit's status and as a comment on the pull request.

    Reads the workflow's event, and verdict/verdict.json. Writes the status and the comment on GitHub. Takes
    seconds. It exits with 1 if the judge has left no verdict.
    """
    from slm.ci import steps

    steps.report_verdict()


@ci_commands.command("seal")
def ci_seal() -> None:
    """Put offered/ into sealed/, if rechecked/ speaks of the very same bytes.

    Reads offered/, rechecked/ and exam-result/. Writes sealed/, and the step's output passed. Takes seconds.
    """
    from slm.ci import steps

    steps.seal()


@ci_commands.command("keep")
def ci_keep() -> None:
    """Set the status of a commit of main, and upload sealed/ as a draft release if it passed.

    Reads sealed/, and the variable ATTESTED. Writes the draft release and the commit's status on GitHub.
    Takes as long as the upload.
    """
    from slm.ci import steps

    steps.keep()


@ci_commands.command("sealed")
def ci_sealed() -> None:
    """Download the sealed package of this commit into sealed/, if main's workflow sealed it as good.

    Reads the commit's status, its draft release and its attestation on GitHub. Writes sealed/. Takes as long
    as the download. Needs GitHub's command `gh`.
    """
    from slm.ci import steps

    steps.sealed()


@ci_commands.command("verify")
def ci_verify() -> None:
    """Check that sealed/ is what main's workflow sealed for this commit.

    Reads sealed/, and the attestation on GitHub. Writes nothing. Takes seconds. Needs GitHub's command `gh`.
    """
    from slm.ci import steps

    steps.verify()


@ci_commands.command("publish")
def ci_publish(tag: Tag) -> None:
    """Publish sealed/ and release/ as a GitHub release.

    Reads sealed/ and release/. Writes the release on GitHub. Takes as long as the upload.
    """
    from slm.ci import steps

    steps.publish(tag)


@ci_commands.command("announce")
def ci_announce(tag: Tag) -> None:
    """Name a release in released.json, by a pull request.

    Reads sealed/, release/README.md and released.json. Writes released.json, and the branch `released` and
    its pull request on GitHub. Takes seconds. If that pull request is open already, this goes on from its
    released.json.
    """
    from slm.ci import steps

    steps.announce(tag)


@ci_commands.command("propose")
def ci_propose(
    branch: Annotated[str, typer.Argument(help="Branch that the files are pushed to.")],
    title: Annotated[str, typer.Argument(help="Title of commit and pull request.")],
    body: Annotated[Path, typer.Argument(help="File with the pull request's text.")],
    files: Annotated[list[str], typer.Argument(help="Files that are committed.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Take BODY and FILES from there, once checked."),
    ] = None,
) -> None:
    """Push changed files to a branch, and open or update its pull request.

    Reads FILES and BODY, with --from those of an artifact's folder. Writes a commit, the branch and its pull
    request on GitHub, and the step's outputs number and head. Takes seconds. If nothing has changed, it opens
    no pull request.
    """
    from slm.ci import steps

    steps.propose_files(branch, title, body, files, source)


@ci_commands.command("main-run")
def ci_main_run(
    number: Annotated[str, typer.Argument(help="ID of a workflow run, the number in its address.")],
) -> None:
    """Refuse the number of a run that is not a green one of main.yml on the default branch.

    Reads the workflow's event, and the run on GitHub. Writes nothing. Takes a second.
    """
    from slm.ci import steps

    steps.check_main_run(number, steps.event()["repository"]["default_branch"])


@azureml_commands.command("submit")
def azureml_submit() -> None:
    """Start the job of azureml/job.yml, follow it to its end and fetch what it proposes.

    Reads azureml/job.yml, .dvc/config and the variables AZURE_CLIENT_ID and so on. Writes dvc.lock,
    params.yaml and reports/verdict.md. Takes as long as the training, and the compute costs money. Needs the
    Azure CLI.
    """
    from slm.ci.azureml import submit

    submit()


@azureml_commands.command("cancel")
def azureml_cancel() -> None:
    """End the job of this workflow run, if it still runs.

    Reads the job's status on Azure. Writes no file. Takes seconds. An ended job costs no more money.
    """
    from slm.ci.azureml import cancel

    cancel()
