"""`slm repro` and what else makes, tries and shows the model."""

from pathlib import Path
from typing import Annotated

import typer

from slm.cli.root import Panel, app
from slm.cli.stages import Stage


@app.command("repro", rich_help_panel=Panel.MODEL)
def repro_command() -> None:
    """Run the pipeline: only the stages whose inputs have changed.

    Reads task/, params.yaml and dvc.yaml. Writes models/, predictions/, reports/, dist/ and dvc.lock. All of
    it takes about 25 minutes on two cores. An endpoint teacher costs money: you are told how much before the
    first request. Stopped with Ctrl-C, the same command goes on where it was.
    """
    from slm.dvc_cli import dvc

    dvc("repro")


@app.command("restore", rich_help_panel=Panel.MODEL)
def restore_command(
    budget: Annotated[float, typer.Option(help="Minutes that the run may take.", metavar="MINUTES")] = 240,
) -> None:
    """Run the pipeline, but first take what others have made from the cache and the DVC remote.

    What is left runs only if its stages take no longer than the budget. Minutes are those that dvc.yaml
    states
    for each stage: the default profile's on two cores.
    """
    from slm.ci.plan import restore

    restore(budget)


@app.command("plan", rich_help_panel=Panel.MODEL)
def plan_command() -> None:
    """Print the stages that would run, and how many minutes each takes.

    Reads dvc.yaml, dvc.lock and the files that they name. Writes nothing. Takes seconds.
    """
    from slm.ci.plan import state_plan

    state_plan()


@app.command("locked", rich_help_panel=Panel.MODEL)
def locked_command() -> None:
    """Say whether dvc.lock fits the files; exit with 2 if it does not.

    Reads dvc.yaml, dvc.lock and the files that they name. Writes nothing. Takes seconds.
    """
    from slm.ci.plan import check_lock

    check_lock()


@app.command("pull", rich_help_panel=Panel.MODEL)
def pull_command() -> None:
    """Take data and models from the cache and, where there is one that can be read, from the DVC remote.

    A remote that cannot be read is no error: what is missing can be made again. Takes as long as the
    download.
    """
    from slm.ci.plan import pull

    pull()


@app.command("push", rich_help_panel=Panel.MODEL)
def push_command() -> None:
    """Copy data and models that dvc.lock names to the DVC remote, where there is one.

    Takes as long as the upload, and your storage may cost money. Stopped, the same command goes on.
    """
    from slm.ci.plan import push

    push()


@app.command("stage", rich_help_panel=Panel.MODEL)
def stage_command(
    name: Annotated[Stage, typer.Argument(metavar="NAME", help="A file of pipeline/.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="What dvc.yaml gives the stage, for example: evaluate int4 models/int4"),
    ] = None,
) -> None:
    """Run one stage of the pipeline by itself, without DVC.

    It reads and writes what dvc.yaml lists for the stage, whether or not anything has changed, and dvc.lock
    does not know of it.
    """
    from slm.cli.stages import run_stage

    run_stage(name, arguments or [])


@app.command("seeds", rich_help_panel=Panel.MODEL)
def seeds_command(
    number: Annotated[int, typer.Argument(metavar="N", help="How many seeds, at least 2.", min=2)] = 5,
) -> None:
    """Measure how much of a score is noise: train the student again from other seeds.

    Needs a finished `slm repro`. Takes as long as the student's stages, times the number of seeds. A seed
    that is done is not trained again. Writes predictions/seeds/ and reports/seeds.json; your models stay as
    they are.
    """
    from slm.experiments.seeds import train_seeds

    train_seeds(number)


@app.command("search", rich_help_panel=Panel.MODEL)
def search_command(
    trials: Annotated[
        int,
        typer.Option(
            metavar="N", help="Trials in the study when this ends. 0: print what was found so far.", min=0
        ),
    ] = 0,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="SQLAlchemy address of the study, for many machines. Without it, a file in .cache/search/.",
        ),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What may be changed. Without it, search.yaml."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the best trial's parameters into params.yaml.")
    ] = False,
) -> None:
    """Search better parameters for the student, on validation data.

    Each trial trains a student with other parameters in a copy of this checkout. Needs a finished `slm
    repro`. A trial takes about as long as the stages distill and finetune, less if it is ended early.
    Stopped, the same command goes on.
    """
    from slm.experiments.search import SPACE, STORAGE, search

    search(trials, storage or STORAGE, space or SPACE, apply)


@app.command("report", rich_help_panel=Panel.MODEL)
def report_command() -> None:
    """Write reports/report.html: one page that shows where the model is good and where not.

    Needs a finished `slm repro`. The page needs no network. Takes seconds.
    """
    from slm.report.page import write_report

    write_report()


@app.command("chat", rich_help_panel=Panel.MODEL)
def chat_command() -> None:
    """Talk to the model in dist/, in this terminal. An empty line ends.

    Needs a finished `slm repro`. Writes nothing.
    """
    from slm.serving.chat import chat

    chat()


@app.command("serve", rich_help_panel=Panel.MODEL)
def serve_command(
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of a model. Without it, the package in dist/.")
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen on; 0.0.0.0 is open to your network.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(metavar="PORT", help="Port to listen on.")] = 8000,
) -> None:
    """Serve the model with OpenAI's interface, at http://HOST:PORT/v1, until you stop it.

    Answers one request at a time. Writes nothing.
    """
    from slm.serving.server import serve

    serve(model, host, port)
