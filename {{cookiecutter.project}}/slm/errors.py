"""One kind of error for what a user can mend: it is shown as one message, without a traceback."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Names the place (file, line), the value and the remedy."""

    exit_code = 2


def brief(text: str, longest: int) -> str:
    """Any text on one line, without what a terminal or the log of a workflow would act on."""
    flat = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())
    flat = re.sub(r"##(?=\[)|^:(?=:)", lambda found: " ".join(found[0]) + " ", flat)
    return flat if len(flat) <= longest else f"{flat[:longest]}…"


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a `UserError` (and a full disk) into one line on stderr and an exit code."""
    try:
        yield
    except UserError as error:
        _show(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        # Not every library that writes raises an OSError: safetensors has an error of its own.
        if getattr(error, "errno", None) != errno.ENOSPC and "No space left on device" not in str(error):
            raise
        where = getattr(error, "filename", None) or "while writing"
        _show(f"the disk is full ({where}): free some space, then run `slm repro` again; it resumes")
        sys.exit(2)


def _show(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    # in a workflow: where a person looks first; as code, since a message may quote anybody's text
    if summary:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(f"\n    error: {' '.join(message.split())}\n\n")
