"""Find what a change touches. Both commits are read as data: no file of either is imported or run.

`slm changes BASE HEAD` says whether the model must be judged anew, and which of the judge's files changed.
"""

import json
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml.error import YAMLError

from slm.git import changed_files, differing, file_at, merge_of
from slm.task.strict import json_rows
from slm.verdict.contract import CONTRACT, Contract, loosened
from slm.verdict.foreign_yaml import foreign_yaml
from slm.verdict.waivers import WAIVERS, Waivers, waived_since

ReadModel = TypeVar("ReadModel", bound=BaseModel)

# Both lists name what is harmless, in full names and with the case of letters. All else counts: nobody can
# list each name that a library, DVC or Git would read.
SEGMENT = r"\w[\w -]*(?:\.[\w-]+)*"  # of a path: no hidden file, no blank or dot at its end
FOLDERS = rf"(?:{SEGMENT}/)*"

# Words for people. CODEOWNERS gives an owner to all but these.
WORDS = rf"(?:docs/{FOLDERS})?{SEGMENT}\.md"

# What cannot change a model, though it may change a verdict. A new file at the root is not among them: it
# could stand before a library of the same name. Nor is what DVC reads in any folder, such as tests/dvc.yaml.
BESIDE_MODEL = "|".join(
    (
        WORDS,
        rf"docs/{FOLDERS}{SEGMENT}\.(?:svg|png|css|js)",
        rf"tests/{FOLDERS}{SEGMENT}\.(?:py|json|jsonl|jinja)",
        rf"\.github/{FOLDERS}{SEGMENT}\.(?:yml|json|py|md)",
        r"\.github/CODEOWNERS",
        rf"(?:contracts|schemas)/{SEGMENT}\.schema\.json",
        r"LICENSE|Dockerfile|mkdocs\.yml|search\.yaml|(?:gates|waivers)\.yaml|(?:released|devices)\.json",
    )
)

# The task's data that have rules of their own: the pipeline's checks judge these, and the judge reads none.
DATA = frozenset({"task/train.jsonl", "task/validation.jsonl", "task/prompts.jsonl"})

# What the files are for, the most dangerous first. These are texts: a file that they lack is shown too.
JUDGE = dict.fromkeys(
    (
        *("slm/verdict/*", "slm/ci/*", "slm/cli/*", "slm/__main__.py"),
        *(
            "slm/*__init__.py",
            "slm/dvc_cli.py",
            "slm/errors.py",
            "slm/files.py",
            "slm/git.py",
            "slm/github.py",
            "slm/processes.py",
            "slm/progress.py",
            "slm/stage.py",
            "slm/tables.py",
        ),
        *(
            "slm/config/*",
            "slm/task/*",
            "slm/modeling/encoding.py",
            "slm/quality/required.py",
            "slm/inference/*",
            "slm/evaluation/*",
            "slm/export/packaging.py",
        ),
    ),
    "the judge's code",
) | {
    "gates.yaml": "the contract",
    "waivers.yaml": "which failed gates are let through",
    "released.json": "what a candidate is compared with",
    "exam/*": "the hidden exam",
    "*.dvc": "where DVC writes files",
    "devices.json": "how many answers may differ on a device",
    ".github/CODEOWNERS": "who must approve what",
    ".github/ruleset*": "what a merge needs",
    ".github/*": "the workflows",
    "task/test.jsonl": "the test set",
    "task/task.yaml": "the form of an answer",
    "params.yaml": "the judge's parameters, among others",
    "contracts/*": "the form of the facts",
    ".dvc/*": "where the workflows send keys and data",
    "*.dvcignore": "what DVC does not see",
    "*.git*": "how Git reads and writes files",
    "Makefile": "the commands of the workflows",
    "bootstrap.py": "the set-up of the workflows",
    "pyproject.toml": "the command `slm`",
    "requirements/*": "what the judge runs on",
    "pipeline/evaluate.py": "the evaluation",
    "pipeline/measure.py": "the measurement",
    "pipeline/package.py": "the ladder",
    "azureml/*": "the training on Azure",
    "Dockerfile": "the image of a release",
}
# What makes the model, and what is about it. It comes last; between the two, a file that neither names.
REST = {
    "tests/*": "the tests",
    "dvc.yaml": "the pipeline",
    "dvc.lock": "which data and models the pipeline made",
    "pipeline/*": "a stage of the pipeline",
    "slm/*": "code of the pipeline",
    "recipes/*": "a recipe",
    "profiles/*": "a profile",
    "search.yaml": "the parameter search",
    "task/*": "the task",
    "schemas/*": "a schema",
    "docs/*": "pictures and code of the pages",
    "mkdocs.yml": "how the pages are made",
}
OTHER = "neither words nor data of the task"


def touches_model(files: dict[str, bool]) -> list[str]:
    """Those of the changed files that can change the model: all but a few kinds that surely cannot."""
    return [f for f, plain in files.items() if not (plain and re.fullmatch(BESIDE_MODEL, f))]


def judges_files(files: dict[str, bool]) -> list[str]:
    """Those of the changed files that are neither words nor the task's data, each with what it is for; the
    most dangerous first.
    """
    listed = []
    for f, plain in files.items():
        if not (plain and (f in DATA or re.fullmatch(WORDS, f))):
            rank, what = _purpose(f)
            listed.append((rank, f"{f} ({what if plain else 'a link or a submodule'})"))
    return [text for _, text in sorted(listed)]


def _purpose(file: str) -> tuple[int, str]:
    """Rank and text of a file."""
    for first, known in ((0, JUDGE), (len(JUDGE) + 2, REST)):
        for rank, (pattern, what) in enumerate(known.items()):
            if fnmatchcase(file, pattern):
                return first + rank, what
    if file.endswith(".py"):
        return len(JUDGE), "code that Python can import"
    return len(JUDGE) + 1, OTHER


def read_at(revision: str | None, path: Path, model: type[ReadModel]) -> ReadModel | None:
    """A file of a commit as its type; None where it is not there or cannot be read."""
    text = file_at(revision, str(path))
    try:
        return model.model_validate(foreign_yaml(text)) if text else None
    except (YAMLError, ValidationError, RecursionError):
        return None


def loosening(base: str, head: str | None) -> list[str]:
    """How the contract of `head` is looser than that of `base`, and what it waives beyond."""
    before, after = (read_at(revision, CONTRACT, Contract) for revision in (base, head))
    lines = []
    if before is not None:
        lines += loosened(before, after) if after else [f"{CONTRACT} was removed or cannot be read"]
    known, waived = (read_at(revision, WAIVERS, Waivers) for revision in (base, head))
    if waived is None and file_at(head, str(WAIVERS)) is not None:
        lines.append(f"{WAIVERS} cannot be read")
    return lines + waived_since(known.waivers if known else [], waived.waivers if waived else [])


def dropped_tests(base: str, head: str) -> list[str]:
    """Test examples that `head` lacks or changes, as one line; hard ones are easily lost."""

    def read(revision: str) -> dict[str, str]:
        rows = {}
        for _, row in json_rows((file_at(revision, "task/test.jsonl") or "").encode()):
            if isinstance(row, dict) and "id" in row and "messages" in row:
                rows[str(row["id"])] = json.dumps(row["messages"], sort_keys=True)
        return rows

    before, after = read(base), read(head)
    gone = [i for i in before if i not in after]
    changed = [i for i in before if i in after and before[i] != after[i]]
    lines = []
    if gone:
        lines.append(f"task/test.jsonl lost {len(gone)} of {len(before)} examples")
    if changed:
        lines.append(f"task/test.jsonl changed {len(changed)} of {len(before)} examples")
    return lines


def forgotten_releases(base: str, head: str) -> list[str]:
    """Released models that `head` no longer names: without them nothing is compared, and any loss passes."""

    def read(revision: str) -> dict[str, Any]:
        try:
            value = json.loads(file_at(revision, "released.json") or "{}")
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    before, after = read(base), read(head)
    return [
        f"released.json no longer names a {name} model"
        for name in ("released", "best")
        if before.get(name) and not after.get(name)
    ]


def easier_checks(base: str, head: str) -> list[str]:
    """An exam that is gone or another, and a higher tolerance for answers that differ."""
    lines = []
    for part in ("requests", "answers"):
        before, after = (file_at(revision, f"exam/{part}.enc") for revision in (base, head))
        if before is not None and before != after:
            lines.append(f"exam/{part}.enc was {'changed' if after else 'removed'}")
    rows = params_diff(base, head, "devices.json")
    for before, after in ((before, after) for name, before, after in rows if name == "tolerance"):
        lines.append(f"the tolerance of devices.json went from {before} to {after}")
    return lines


def params_diff(base: str, head: str | None, path: str = "params.yaml") -> list[tuple[str, str, str]]:
    """Values of a YAML or JSON file that differ, of `head` or this checkout: (name, before, after)."""

    def flat(value: Any, name: str = "") -> dict[str, str]:
        if isinstance(value, dict):
            return {
                k: v
                for key, inner in value.items()
                for k, v in flat(inner, f"{name}.{key}" if name else str(key)).items()
            }
        return {name: json.dumps(value, default=str)}

    def read(revision: str | None) -> dict[str, str]:
        try:
            text = file_at(revision, path) or ""
            return flat((json.loads(text or "{}") if path.endswith(".json") else foreign_yaml(text)) or {})
        except (YAMLError, ValueError, RecursionError):
            return {}

    before, after = read(base), read(head)
    return [
        (n, before.get(n, "–"), after.get(n, "–"))
        for n in sorted({*before, *after})
        if before.get(n) != after.get(n)
    ]


def parameters_diff(base: str, head: str | None) -> list[tuple[str, str, str]]:
    """Parameters that differ, then what differs in recipes, named by file; nothing where this clone lacks
    `base`.
    """
    if file_at(base, "params.yaml") is None:
        return []
    rows = params_diff(base, head)
    for path in differing(base, head, "recipes"):
        rows += [(f"{path}: {name}", before, after) for name, before, after in params_diff(base, head, path)]
    return rows


def describe(base: str, head: str) -> dict[str, Any]:
    """What a merge of `head` into `base` would change: it is read in the merged files, not in those of
    `head`, which may lack what `base` has since. Where git cannot merge the two, all that differs counts.
    """
    after = merge_of(base, head)
    files = changed_files(base, after.tree)
    if after.conflicts:
        files |= changed_files(base, head) | dict.fromkeys(after.conflicts, False)
    tree = head if after.conflicts else after.tree
    return {
        "base": base,
        "head": head,
        "files": len(files),
        "conflicts": after.conflicts,
        "model": sorted(files) if after.conflicts else touches_model(files),
        "judge": judges_files(files),
        "weakened": loosening(base, tree)
        + dropped_tests(base, tree)
        + forgotten_releases(base, tree)
        + easier_checks(base, tree),
        "params": params_diff(base, tree),
    }


def print_changes(base: str, head: str, steps: bool) -> None:
    """Print what the change touches as JSON.

    Args:
        base: commit to which the change would be merged.
        head: commit of the change.
        steps: write `model=true` or `model=false` as output of a workflow's step, too.
    """
    found = describe(base, head)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    if steps:
        with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as stream:
            stream.write(f"model={'true' if found['model'] else 'false'}\n")
