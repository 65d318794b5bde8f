"""One kind of error for what a user can mend: it is shown as one message, without a traceback."""

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path


class UserError(Exception):
    """Names the place (file, line), the value and the remedy."""


def stage(main: Callable[..., None]) -> Callable[..., None]:
    """Turn a `UserError` (and a full disk) into one line on stderr and exit code 2."""

    @wraps(main)
    def run(*args: str) -> None:
        # A stage is a library user: no telemetry, no hub, whatever the shell says.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        try:
            main(*args)
        except UserError as error:
            sys.exit(_fail(str(error)))
        except Exception as error:
            # Not every library that writes raises an OSError: safetensors has an error of its own.
            if getattr(error, "errno", None) != errno.ENOSPC and "No space left on device" not in str(error):
                raise
            where = getattr(error, "filename", None) or "while writing"
            sys.exit(
                _fail(f"the disk is full ({where}): free some space, then run `dvc repro` again; it resumes")
            )

    return run


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    # in a workflow: where a person looks first; as code, since a message may quote anybody's text
    if summary:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(f"\n    error: {' '.join(message.split())}\n\n")
    return 2
