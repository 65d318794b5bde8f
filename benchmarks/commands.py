"""Which commands README and docs name, and which of them a test runs.

    python -m benchmarks.commands       prints each command with the test that runs it, or why none does

A command is a program and its subcommand, without options: `slm teacher export FILE` is `slm teacher export`, `make repro gate` is
two, `python -m slm.ci.device sealed` is `python -m slm.ci.device`. It is documented where a fenced block of shell or a code span
begins with it. A test runs it where its file passes those words to a call or holds them in a list; a string that merely mentions it
does not count. From there on it goes as the machine goes: a make target runs its recipe and its prerequisites, `dvc repro` the
commands of dvc.yaml, a workflow that a test starts its steps. What the template's ci.yml runs counts too. So a command is taken for tested where a test's text runs it;
whether that test passes is the tests' to say.
"""

import ast
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from ruamel.yaml import YAML

from benchmarks.prose import BODY, TEMPLATE, pages

# The words after a program that make a command of it; what does not match is no command (`docker … ended with exit code`).
_NAME = r"[a-z][a-z0-9-]*"
PROGRAMS = {
    "slm": rf"(?:(?:teacher|release|device|ci|azureml) )?{_NAME}|--help|--version|$",
    "make": rf"{_NAME}",
    "python": r"-m [\w.]+|[\w/.-]+\.py",
    "dvc": rf"(?:(?:remote|plots|metrics|params|exp|cache|stage) )?{_NAME}",
    "cookiecutter": r".*",
    "cruft": _NAME,
    "tensorboard": r".*",
    "uv": rf"(?:pip )?{_NAME}",
    "pip": _NAME,
    "ray": "start|stop|status",
    "accelerate": "config|launch",
    "docker": "run|build|logs",
    "gh": "api|pr|auth|attestation|release",
    "az": rf"{_NAME}(?: {_NAME})?",
}
WHOLE = ("cookiecutter", "tensorboard")  # one command, whatever follows
SHELL = ("", "sh", "bash", "shell", "console", "text")
# What no test runs, and why.
UNTESTED = {
    "az": "needs an Azure subscription",
    "slm azureml submit": "needs an Azure subscription; tests run it against a stand-in for `az`",
    "slm azureml cancel": "needs an Azure subscription; tests run it against a stand-in for `az`",
    "gh": "needs a repository on GitHub",
    "docker": "needs docker",
    "slm release image": "needs docker",
    "make container": "needs docker",
    "slm release sign": "needs a workflow's identity at GitHub",
    "make sign": "needs a workflow's identity at GitHub",
    "accelerate": "needs several GPUs",
    "ray": "needs several machines; tests use Ray on one",
    "slm extra deepspeed": "needs a GPU",
    "python -m sglang.launch_server": "needs a GPU",
    "dvc remote": "needs a bucket; tests set a local S3 another way",
    "slm lock": "asks the package index for newer versions",
    "make lock": "asks the package index for newer versions",
    "cookiecutter": "clones from GitHub; tests bake from this folder",
    "pip install": "the system's own installer",
    "tensorboard": "a server of its own, to look at",
    "make pictures": "needs Chromium",
    "python -m benchmarks.contamination": "`make bench-trust` runs it every night",
    "python -m benchmarks.peer": "makes another project's model for comparison, in an environment of its own",
}
# Jobs of workflows that the scenarios leave out (tests/test_release.py).
NOT_RUN = {("release.yml", "container")}


def commands_of(words: list[str]) -> list[str]:
    """The commands that a line of words begins with, after settings of the environment; several for make."""
    while words and (re.fullmatch(r"[A-Z_]+=.*", words[0]) or words[0] == "$"):
        words = words[1:]
    if not words:
        return []
    program = re.sub(r"^python3(\.\d+)?$", "python", re.sub(r"\.exe$", "", re.split(r"[/\\]", words[0])[-1]))
    if program not in PROGRAMS:
        return []
    rest = words[1:]
    if program == "python" and rest[:2] == ["-I", ".github/steps.py"]:  # as the workflows start a module
        return commands_of(["slm", *rest[3:]] if rest[2:3] == ["slm"] else ["python", "-m", *rest[2:]])
    if program == "make":
        folder = rest.index("-C") if "-C" in rest else None
        rest = rest if folder is None else rest[:folder] + rest[folder + 2 :]
        return [] if "-n" in rest else [f"make {word}" for word in rest if re.fullmatch(PROGRAMS["make"], word)]
    if program == "python" and rest[:1] == ["-m"] and rest[1:2] and rest[1] in PROGRAMS:
        return commands_of(rest[1:])  # python -m dvc
    if program in WHOLE:
        return [program]
    match = re.match(rf"(?:{PROGRAMS[program]})(?= |$)", " ".join(rest))
    return [f"{program} {match[0]}".strip()] if match else []


def lines_of(shell: str) -> Iterator[str]:
    """The simple commands of a text of shell, roughly: lines, joined and cut at && || ; | and comments."""
    for line in shell.replace("\\\n", " ").split("\n"):
        yield from re.split(r"&&|\|\||;|\|", re.sub(r"(^|\s)#.*", "", line))


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def documented(page: str) -> set[str]:
    spans = []
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        if (token.type == "fence" and token.info.split(" ")[0] in SHELL) or token.type == "code_block":
            spans += lines_of(token.content)
        for child in token.children or []:
            if child.type == "code_inline":
                spans += lines_of(child.content)
    return {command for span in spans for command in commands_of(words_of(span))}


def _constants(nodes: Iterable[ast.AST]) -> list[str]:
    """The words of a call or list: constants as they are, `sys.executable` as python, a path by its last part."""
    words = []
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.append(node.value)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable":
            words.append("python")
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            words += _constants([node.right])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("str", "shutil.which"):
            words += _constants(node.args)
        elif isinstance(node, ast.Starred) and isinstance(node.value, (ast.List, ast.Tuple)):
            words += _constants(node.value.elts)
        elif isinstance(node, ast.Starred) and ast.unparse(node.value) == "dvc":
            words.append("dvc")
        elif isinstance(node, ast.Name) and node.id in ("dvc", "slm"):
            words.append(node.id)
    return words


def called(source: str) -> dict[str, int]:
    """Commands that a test's source runs, with the line of the first one."""
    found: dict[str, int] = {}

    def note(words: list[str], line: int) -> None:
        for i in range(len(words)):
            for command in commands_of(words[i:]):
                found.setdefault(command, line)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            words = _constants(node.args)
            if name in PROGRAMS:  # a test's own helper: python(project, "-m", "slm.verdict.gate")
                words = [name, *words]
            if name == "invoke":  # Typer's runner: invoke(app, ["gate", "--json"])
                words = ["slm", *(w for a in node.args if isinstance(a, ast.List) for w in _constants(a.elts))]
            note(words, node.lineno)
        elif isinstance(node, ast.List):
            words = _constants(node.elts)
            note(words, node.lineno)
            whole = [commands_of(words_of(word)) for word in words if " " in word]
            if len(whole) == len(words) and all(whole):  # a list of whole commands: ["slm repro", "slm gate"]
                for command in (c for commands in whole for c in commands):
                    found.setdefault(command, node.lineno)
    return found


def make_rules(makefile: str) -> dict[str, set[str]]:
    """What each target runs: its recipe's commands and its prerequisites."""
    rules: dict[str, set[str]] = {}
    target = None
    for line in makefile.replace("\\\n", " ").split("\n"):
        if rule := re.match(r"^([\w./-]+):(?!=)([^#=]*)", line):
            target = f"make {rule[1]}"
            rules.setdefault(target, set()).update(f"make {name}" for name in rule[2].split())
        elif line.startswith("\t") and target:
            recipe = re.sub(r"\$\((?:BIN|DEMO)\)/|^\t[@-]*", "", line)
            for name, program in {"$(PYTHON)": "python", "$(MAKE)": "make", "$(SLM)": "slm"}.items():
                recipe = recipe.replace(name, program)
            rules[target] |= {c for part in lines_of(recipe) for c in commands_of(words_of(part))}
        elif line.strip() and not line.startswith("#"):
            target = None
    return rules


def _steps(path: Path) -> set[str]:
    jobs = YAML(typ="safe").load(path.read_text(encoding="utf-8")).get("jobs", {})
    texts = [
        step["run"] for name, job in jobs.items() if (path.name, name) not in NOT_RUN for step in job.get("steps", []) if "run" in step
    ]
    return {c for text in texts for line in lines_of(text) for c in commands_of(words_of(line))}


def of_ci() -> set[str]:
    """What the template's own workflow runs: its steps, and the targets of its matrices."""
    path = TEMPLATE / ".github" / "workflows" / "ci.yml"
    jobs = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["jobs"].values()
    matrices = [job["strategy"]["matrix"] for job in jobs if "strategy" in job]
    targets = {t for matrix in matrices for t in matrix.get("target", [entry["target"] for entry in matrix.get("include", [])])}
    return _steps(path) | {f"make {target}" for target in targets}


def tested() -> dict[str, str]:
    """Each command that a test or the template's own workflow runs, with where."""
    found = dict.fromkeys(of_ci(), "the template's ci.yml")
    sources = [*sorted((TEMPLATE / "tests").glob("*.py")), *sorted((BODY / "tests").glob("*.py"))]
    started: set[str] = set()
    for path in sources:
        text = path.read_text(encoding="utf-8")
        started |= set(re.findall(r'"(\w+\.yml)"', text))
        for command, line in called(text).items():
            found.setdefault(command, f"{path.relative_to(TEMPLATE).as_posix()}:{line}")
    for path in sorted((BODY / ".github" / "workflows").glob("*.yml")):
        for command in _steps(path) if path.name in started else ():
            found.setdefault(command, f"{path.name}, which a test starts")
    runs = make_rules((BODY / "Makefile").read_text(encoding="utf-8"))
    stages = YAML(typ="safe").load((BODY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    runs["dvc repro"] = {c for s in stages.values() for c in commands_of(words_of(s.get("do", s)["cmd"]))}
    waiting = [*found]
    while waiting:
        command = waiting.pop()
        for inner in sorted(runs.get(command, set()) - found.keys()):
            found[inner] = f"`{command}`, which a test runs"
            waiting.append(inner)
    return found


def reason(command: str) -> str | None:
    """Why no test runs it: a line of the table names it, its program, or what it begins with."""
    for name, why in UNTESTED.items():
        if command == name or command.startswith(name if name[-1] in "-." else f"{name} "):
            return why
    return None


def survey() -> dict[str, tuple[bool, str]]:
    """Each documented command: is it tested, and where it is or why it is not ("" where nobody says why)."""
    runs = tested()
    named = [page for page in pages() if page.name != "CHANGELOG.md"]  # it names what is gone
    commands = set().union(*(documented(page.read_text(encoding="utf-8")) for page in named))
    return {c: (False, reason(c) or "") if reason(c) or c not in runs else (True, runs[c]) for c in sorted(commands)}


def main() -> int:
    found = survey()
    for command, (is_tested, why) in found.items():
        print(f"{command:44s}{'tested  ' if is_tested else 'untested'}  {why or 'NO REASON GIVEN'}")
    return 1 if any(not why for _, why in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
