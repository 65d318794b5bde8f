"""One stage of the pipeline in a process of its own."""

import sys
from typing import Literal

import typer

from slm.processes import run_child

Stage = Literal[
    "check", "convert", "distill", "evaluate", "fetch", "finetune",
    "measure", "package", "quantize", "synthesize", "teach", "validate",
]  # fmt: skip


def exit_with(code: int) -> None:
    """End the command as the program ended that it has run."""
    if code:
        raise typer.Exit(code)


def run_stage(name: Stage, arguments: list[str]) -> None:
    exit_with(run_child(sys.executable, "-m", f"pipeline.{name}", *arguments))
