"""`slm data`, `profile`, `weak-slices`: the task and its data."""

from typing import Annotated

import typer

from slm.cli.root import Panel, app


@app.command("data", rich_help_panel=Panel.DATA)
def data_command() -> None:
    """Judge the data in task/: format, balance, copies between the splits, doubtful labels.

    Reads task/. Writes reports/data.json and reports/judged.json. Takes seconds and costs nothing. It is the
    stage `check`, run without DVC.
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

    Reads params.yaml and the profile's file. Writes params.yaml. Takes a second. Only the lines that the
    profile names change, and `git diff` shows them.
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

    Runs the shipped model on the validation set. Reads models/, task/ and params.yaml. Writes the scores by
    class and tag into params.yaml, as synthesize.slice_scores. Takes about a minute. Needs a finished `slm
    repro`.
    """
    from slm.experiments.weak_slices import write_weak_slices

    write_weak_slices()
