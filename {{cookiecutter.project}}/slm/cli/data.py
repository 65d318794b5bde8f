"""`slm data`, `profile`, `weak-slices`: the task and its data."""

from typing import Annotated

import typer

from slm.cli.root import Panel, app


@app.command("data", rich_help_panel=Panel.DATA)
def data_command() -> None:
    """Judge the data in task/: form, balance, copies between the splits, doubtful labels.

    Reads task/ and writes reports/data.json. Takes seconds and costs nothing. It is the stage `check`, run
    without DVC.
    """
    from slm.cli.stages import run_stage

    run_stage("check", [])


@app.command("profile", rich_help_panel=Panel.DATA)
def profile_command(
    name: Annotated[
        str | None, typer.Argument(help="A file of profiles/: quick or full. Without it, nothing is written.")
    ] = None,
) -> None:
    """Write a profile into params.yaml, or check params.yaml and print the profile that it holds.

    Only the lines that the profile names change, and `git diff` shows them. Takes a second.
    """
    from slm.config.edit import apply_profile
    from slm.config.params import load_params

    if name is not None:
        apply_profile(name)
    params = load_params()
    if name is None:
        print(params.profile)


@app.command("weak-slices", rich_help_panel=Panel.DATA)
def weak_slices_command() -> None:
    """Find out for which classes and tags the student needs more prompts.

    Asks the model that ships the validation set and writes its scores by class and tag into params.yaml, as
    synthesize.slice_scores. Needs a finished `slm repro`. Takes about a minute.
    """
    from slm.experiments.weak_slices import write_weak_slices

    write_weak_slices()
