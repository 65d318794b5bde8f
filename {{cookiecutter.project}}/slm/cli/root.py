"""The root of the command `slm`: its panels, its errors and exit codes. The commands stand in the files
beside.
"""

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


EXIT_CODES = {
    "0": "done, and for `gate` and `judge` passed",
    "1": "the answer is no: refused by the gates, answers differ, tests or linters failed",
    "2": "an error, in one line that begins with `error:`, or wrong usage, which prints the usage",
    "128+n": "ended by signal n; 130 is Ctrl-C",
}
PASSED_ON = (
    "The commands `data`, `stage`, `test`, `lint`, `docs`, `lock` and `extra` end with the code of the "
    "program that they run, such as pytest or uv."
)
EPILOG = f"Exit codes: {'. '.join(f'{code}: {means}' for code, means in EXIT_CODES.items())}. {PASSED_ON}"

Tag = Annotated[str, typer.Argument(help="The release's tag, such as v1.")]


class Group(TyperGroup):
    """Commands under the titles of their panels, each with its whole first sentence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without a command, a group prints its help: that is no error."""
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        titles: dict[str, list[tuple[str, str]]] = {panel.value: [] for panel in Panel}
        commands: dict[str, Any] = dict(self.commands)
        for name, command in commands.items():
            panel = command.rich_help_panel
            title = panel.value if isinstance(panel, Panel) else "Commands"
            titles.setdefault(title, []).append((name, command.get_short_help_str(200)))
        for title, rows in titles.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Slm(Group):
    """The root: errors and Ctrl-C become one line."""

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
    rich_markup_mode=None,  # to draw boxes takes longer than all the rest of `slm --help`
    pretty_exceptions_enable=False,
)


def group(name: str, panel: Panel, text: str) -> typer.Typer:
    """A command with commands of its own."""
    commands = typer.Typer(cls=Group, help=text)
    app.add_typer(commands, name=name, rich_help_panel=panel)
    return commands
