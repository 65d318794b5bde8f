"""What a job that may write takes from others: text files of an artifact by name, and runs of main.

Standard library only, as that job installs nothing. Values are not judged here: the pull request's own checks
read them. An artifact that lies over the checkout could replace the code that runs next, so only named files
leave its folder.
"""

import re
from pathlib import Path

from slm import github
from slm.errors import UserError
from slm.files import Json, write_text

LARGEST_BYTES = {".md": 60_000}  # GitHub takes 65,536 characters as the text of a pull request
LARGEST_OTHER_BYTES = 5_000_000
LOCK_HEADS = {"schema: '2.0'", "stages:", "datasets:"}  # the lines that DVC does not indent
YAML_SECTION = re.compile(r"^([^\s#:][^:\n]*):", re.MULTILINE)
MAIN = ".github/workflows/main.yml"


def take(folder: Path, names: list[str]) -> None:
    """Copy the named files of an artifact into this checkout, each once it is the text that it should be."""
    texts = {name: _text(folder, name) for name in names}
    for name, text in texts.items():
        if name == "dvc.lock":
            _check_lock(text)
        elif name == "params.yaml":
            here = YAML_SECTION.findall(Path(name).read_text(encoding="utf-8"))
            if YAML_SECTION.findall(text) != here:
                raise UserError(
                    f"{folder / name}: its sections are not those of {name} here ({', '.join(here)}); it is "
                    "not taken"
                )
    for name, text in texts.items():
        write_text(Path(name), text)
        print(f"{name}: taken from {folder}")


def _text(folder: Path, name: str) -> str:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{name!r} leads out of {folder}; name a file inside it")
    if not path.is_file() or path.resolve() != folder.resolve() / name:
        raise UserError(f"{path} is not there as a plain file; see the job that makes it")
    largest = LARGEST_BYTES.get(path.suffix, LARGEST_OTHER_BYTES)
    if path.stat().st_size > largest:
        raise UserError(f"{path} is larger than {largest} bytes; it is not taken")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error}; it is not taken") from None
    odd = next((c for c in text if not (c.isprintable() or c in "\n\t\u00a0")), None)
    if odd is not None:
        raise UserError(f"{path} holds the character U+{ord(odd):04X}; it is not taken")
    return text


def _check_lock(text: str) -> None:
    heads = [line for line in text.split("\n") if line[:1].strip()]
    wrong = next((line for line in heads if line not in LOCK_HEADS), None)
    if wrong is not None or heads[:2] != ["schema: '2.0'", "stages:"]:
        raise UserError(
            f"dvc.lock is not what DVC writes ({(wrong or ' '.join(heads[:2]))[:80]!r}); it is not taken"
        )


def check_main_run(number: str, branch: str) -> None:
    """Refuse the number of a run whose package main.yml has not made and judged good on the default branch.

    Args:
        number: ID of a workflow run, as a person typed it.
        branch: the default branch.
    """
    if not re.fullmatch(r"[0-9]{1,19}", number):
        raise UserError(
            f"{number[:60]!r} is no ID of a run: it is the number after actions/runs/ in its address"
        )
    run: Json = github.call("GET", f"repos/{github.repository()}/actions/runs/{number}")
    here = github.repository()
    facts = {
        "workflow": (str(run.get("path")).split("@")[0], (MAIN,)),
        "branch": (run.get("head_branch"), (branch,)),
        "event": (run.get("event"), ("push", "workflow_dispatch")),
        "conclusion": (run.get("conclusion"), ("success",)),
        "repository": ((run.get("repository") or {}).get("full_name"), (here,)),
        "repository of the commit": ((run.get("head_repository") or {}).get("full_name"), (here,)),
    }
    for what, (found, allowed) in facts.items():
        if found not in allowed:
            raise UserError(
                f"run {number}: its {what} is {found!r}, not {' or '.join(allowed)}; name a green run of "
                f"`main` on {branch}"
            )
    print(f"run {number} is of {MAIN} on {branch}")
