"""The root of the command `slm`: its panels, its errors and exit codes. The commands stand in the files beside."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from slm.errors import exit_on_user_error


class Panel(StrEnum):
    """The groups of commands in `slm --help`, in this order."""

    DATA = "Task and data"
    MODEL = "Model"
    VERDICT = "Verdict"
    TEACHER = "Teacher"
    RELEASE = "Release"
    DEVICE = "Device"
    AUTOMATION = "Automation"
    PROJECT = "Project"


EPILOG = (
    "Exit codes: 0 done, and for `gate` and `judge` passed; 1 refused by the gates, by `device test`, by a unit "
    "test or a linter; 2 something for you to mend, in one line that begins with `error:`; 130 interrupted by Ctrl-C."
)

Tag = Annotated[str, typer.Argument(help="The release's tag, such as v1.")]


class Slm(TyperGroup):
    """Commands in the order of their panels; errors and Ctrl-C as one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        def place(name: str) -> int:
            command: Any = self.commands[name]
            return list(Panel).index(command.rich_help_panel)

        return sorted(self.commands, key=place)

    def invoke(self, ctx: Any) -> Any:
        try:
            with exit_on_user_error():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="slm",
    cls=Slm,
    help="Make a small language model, judge it and release it.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def group(name: str, panel: Panel, text: str) -> typer.Typer:
    """A command with commands of its own."""
    commands = typer.Typer(help=text, no_args_is_help=True)
    app.add_typer(commands, name=name, rich_help_panel=panel)
    return commands
