"""`slm repro` and what else makes, tries and shows the model."""

from pathlib import Path
from typing import Annotated

import typer

from slm.cli.root import Panel, app
from slm.cli.stages import Stage


@app.command("repro", rich_help_panel=Panel.MODEL)
def repro_command() -> None:
    """Run the pipeline: only the stages whose inputs have changed.

    Reads task/, params.yaml and dvc.yaml. Writes data/, models/, predictions/, reports/, dist/ and dvc.lock.
    Takes about 25 minutes on two cores for all of it. An endpoint teacher costs money: you are told how much
    before the first request. Stopped with Ctrl-C, the same command goes on where it was.
    """
    from slm.dvc_cli import dvc

    dvc("repro")


@app.command("restore", rich_help_panel=Panel.MODEL)
def restore_command(
    budget: Annotated[float, typer.Option(help="Minutes that the run may take.", metavar="MINUTES")] = 240,
) -> None:
    """Run the pipeline, but first take what others have made from the cache and the DVC remote.

    Reads what `slm repro` reads, and the DVC remote. Writes what `slm repro` writes. Takes as long as the
    download, and then at most the budget. What is left runs only if its stages take no longer than the
    budget. The minutes are those that dvc.yaml states for each stage: the default profile's on two cores. An
    endpoint teacher costs money.
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

    Reads dvc.lock, .dvc files, the cache and the DVC remote. Writes the files that dvc.lock and .dvc files
    name, such as models/ and dist/. Takes as long as the download, and your storage may cost money. A remote
    that cannot be read is no error: what is missing can be made again.
    """
    from slm.ci.plan import pull

    pull()


@app.command("push", rich_help_panel=Panel.MODEL)
def push_command(
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Take dvc.lock from this folder first, checked."),
    ] = None,
) -> None:
    """Copy data and models that dvc.lock names to the DVC remote, where there is one.

    Reads dvc.lock, .dvc files and the cache. Writes to the DVC remote, and no file here. Takes as long as the
    upload, and your storage may cost money. Stopped, the same command goes on.
    """
    from slm.ci.plan import push

    push(source)


@app.command("stage", rich_help_panel=Panel.MODEL)
def stage_command(
    name: Annotated[Stage, typer.Argument(metavar="NAME", help="A file of pipeline/.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="What dvc.yaml gives the stage, for example: evaluate int4 models/int4"),
    ] = None,
) -> None:
    """Run one stage of the pipeline by itself, without DVC.

    Reads what dvc.yaml lists as the stage's inputs. Writes the stage's outputs, even if nothing has changed.
    Takes the minutes that dvc.yaml states for the stage. It does not update dvc.lock. With an endpoint
    teacher, the stages synthesize and evaluate cost money.
    """
    from slm.cli.stages import run_stage

    run_stage(name, arguments or [])


@app.command("seeds", rich_help_panel=Panel.MODEL)
def seeds_command(
    number: Annotated[int, typer.Argument(metavar="N", help="How many seeds, at least 2.", min=2)] = 5,
) -> None:
    """Measure how much of a score is noise: train the student again from other seeds.

    Reads what `slm repro` has made, which must be finished. Writes predictions/seeds/ and reports/seeds.json,
    and works in .cache/seeds/; your models stay as they are. Takes as long as the student's stages, times the
    number of seeds. A seed that is done is not trained again.
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

    Each trial trains a student with other parameters in a copy of this checkout. Reads search.yaml,
    params.yaml and what `slm repro` has made, which must be finished. Writes .cache/search/, or the study at
    --storage; with --apply, params.yaml too. Takes about as long as the stages distill and finetune for each
    trial, less if it is ended early. Stopped, the same command goes on.
    """
    from slm.experiments.search import SPACE, STORAGE, search

    search(trials, storage or STORAGE, space or SPACE, apply)


@app.command("report", rich_help_panel=Panel.MODEL)
def report_command() -> None:
    """Write reports/report.html: one page that shows where the model is good and where not.

    Reads reports/, predictions/, dist/, task/, params.yaml and gates.yaml. Writes reports/report.html. Takes
    seconds: it asks the package 60 validation examples, and shows no text of the test set. Needs a finished
    `slm repro`. The page needs no network.
    """
    from slm.report.page import write_report

    write_report()


@app.command("chat", rich_help_panel=Panel.MODEL)
def chat_command() -> None:
    """Talk to the model in dist/, in this terminal. An empty line ends.

    Reads dist/, task/ and params.yaml. Writes nothing. Takes seconds to start and costs nothing. Needs a
    finished `slm repro`.
    """
    from slm.serving.chat import chat

    chat()


@app.command("serve", rich_help_panel=Panel.MODEL)
def serve_command(
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of a model. Without it, the package in dist/.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST", help="Address to listen on; 0.0.0.0 is open to your network, and needs a token."
        ),
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(metavar="PORT", help="Port to listen on.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A Host that requests may name, beside HOST and localhost. Repeat it."
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A site whose pages may send requests. Repeat it for more."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file with the token that clients must send. Else SLM_TOKEN has it."
        ),
    ] = None,
    queue: Annotated[int, typer.Option(metavar="N", min=0, help="How many requests may wait.")] = 8,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Time for one request, waiting included.")
    ] = 120,
) -> None:
    """Serve the model with OpenAI's interface, at http://HOST:PORT/v1, until you stop it.

    Reads dist/, or the folder of --model, and the token. Writes nothing. Takes seconds to start and costs
    nothing. Answers one request at a time.
    """
    from slm.serving.server import Terms, serve

    origins, hosts = tuple(allow_origin or ()), tuple(allow_host or ())
    serve(model, Terms(host, port, hosts, origins, token_file, queue, timeout))
