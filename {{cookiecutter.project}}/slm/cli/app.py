"""The command `slm`: all that a person or a workflow starts by hand, in groups.

Nothing of the project is imported before a command runs: each imports what it needs inside its function, so
that help and completion are quick.
"""

import os

from slm.cli import automation, data, device, model, project, release, teacher, verdict  # noqa: F401
from slm.cli.root import app
from slm.processes import environment


def main() -> None:
    os.environ.update(environment())
    app(prog_name="slm")
