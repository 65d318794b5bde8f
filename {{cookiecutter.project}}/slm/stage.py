"""What surrounds a stage of the pipeline: its arguments, its environment, its errors."""

import argparse
import inspect
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, get_args, get_type_hints

from slm.errors import UserError, exit_on_user_error
from slm.processes import SWITCHES


def stage(main: Callable[..., None]) -> Callable[..., None]:
    """Let a stage's `main` be run by `python -m pipeline.NAME`, and be called by a test.

    In the file that is run, `main()` takes its arguments from the command line. A `UserError` becomes one
    line on stderr and exit code 2.
    """

    @wraps(main)
    def run(*args: str) -> None:
        for name, value in SWITCHES.items():
            os.environ.setdefault(name, value)
        with exit_on_user_error():
            main(*(read_arguments(main) if main.__module__ == "__main__" else args))

    return run


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists the arguments")


def read_arguments(main: Callable[..., None]) -> list[str]:
    """The words of the command line, one for each parameter of `main`; one that is a Literal has choices."""
    module: Any = sys.modules[main.__module__]
    name = module.__spec__.name if module.__spec__ else sys.argv[0]
    parser = _Parser(
        prog=f"python -m {name}",
        description=inspect.getdoc(module),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    types = get_type_hints(main)
    for parameter in inspect.signature(main).parameters:
        parser.add_argument(parameter, choices=get_args(types[parameter]) or None)
    return list(vars(parser.parse_args()).values())
