"""Every command of the workflows, of the set-up action and of the container file finds its modules in its own environment.

A lock may miss what a package imports and does not declare. No installer says so: only a run does. So each environment is made
from its lock, with hashes, and the commands run in it as far as they go without GitHub, docker or an identity.
"""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests import bake
from tests.conftest import install_extra, python, run
from tests.test_bake import BODY

STEPS = ("python3", "-I", ".github/steps.py", "slm.ci.steps")
BINARIES = "Scripts" if sys.platform == "win32" else "bin"
# What begins a command that needs Python or a tool of Python.
COMMAND = re.compile(r"(?:^|[|;&({]|\$\()\s*((?:python3?|pip3?|uv|make|slm|\.venv/bin/\S+)(?=\s|$)[^|;&\n]*)", re.MULTILINE)
# Packages that the code imports only where a parameter asks for them, and the lock that brings each.
EXTRAS = {"azure": "entra", "bitsandbytes": "qlora", "deepspeed": "deepspeed", "mkdocs": "docs", "ray": "ray"}
MISSING = re.compile(r"ModuleNotFoundError|ImportError|No module named|cannot import name")


@dataclass(frozen=True)
class Command:
    """One command of a job. `environment`: bare (Python alone), serve, or locked (that of set-up)."""

    place: str
    environment: str
    words: tuple[str, ...]


def jobs(project: Path) -> Iterator[tuple[str, list[dict]]]:
    """(file and job, its steps) of each job, and of the set-up action."""
    github = project / ".github"
    for path in sorted([*github.glob("workflows/*.yml"), *github.glob("actions/*/action.yml")]):
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        if "runs" in content:
            yield f"actions/{path.parent.name}", content["runs"]["steps"]
        for name, job in content.get("jobs", {}).items():
            yield f"{path.name}: {name}", job.get("steps", [])


def commands(project: Path) -> list[Command]:
    """Every command of the workflows that needs Python, in its environment.

    Raises:
        AssertionError: nobody knows where its packages come from.
    """
    found = []
    for place, steps in jobs(project):
        made = {"bare"}
        for step in steps:
            if step.get("uses") == "./.github/actions/setup":
                made.add("locked")
            for text in COMMAND.findall(step.get("run", "")):
                words = tuple(shlex.split(re.sub(r"\$\{?\w+[^\s\"'}]*\}?", "x", text)))
                if "pip" in words and "install" in words:
                    assert "--require-hashes" in words, f"{place}: {text} installs without hashes"
                    made.add(Path(words[words.index("-r") + 1]).stem)
                    continue
                kind = "locked" if words[0] == "make" or words[0].startswith(".venv/") else "serve" if "serve" in made else "bare"
                assert words[0] in ("make", "python", "python3") or kind == "locked", f"{place}: whose is {text}?"
                assert kind in made, f"{place}: {text} runs before its environment is made"
                found.append(Command(place, kind, words))
    return found


COMMANDS = commands(BODY)


def of(kind: str) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(c.words for c in COMMANDS if c.environment == kind))


def outside(project: Path, *modules: str) -> set[str]:
    """Packages outside the project that some modules import, anywhere in their files, and those of slm that these import.

    What only a type checker reads does not count, nor what a handler of ImportError guards.
    """
    names: set[str] = set()
    seen: set[Path] = set()
    waiting = [path for module in modules for path in files_of(project, module)]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            inside = files_of(project, name)
            waiting += inside
            if not inside:
                names.add(name.partition(".")[0])
    return names - {"slm", "pipeline"}


def files_of(project: Path, module: str) -> list[Path]:
    """The file of a module of the project, and of the packages around it. A name that a module holds is that module's."""
    parts, files = module.split("."), []
    if parts[0] not in ("slm", "pipeline"):
        return []
    for n in range(1, len(parts) + 1):
        path = project.joinpath(*parts[:n])
        files += [p for p in (path / "__init__.py", path.with_suffix(".py")) if p.exists()]
    return files


def imported(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names if child.module)
        elif (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)) or (
            isinstance(child, ast.Try) and any(h.type and "ImportError" in ast.unparse(h.type) for h in child.handlers)
        ):
            continue
        else:
            yield from imported(child)


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bake.bake(tmp_path_factory.mktemp("baked") / "my-slm")


def bare(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Python with its standard library alone: no installed packages, and nothing of this shell."""
    kept = {"PATH": os.environ["PATH"], "HOME": str(project), "SYSTEMROOT": os.environ.get("SYSTEMROOT", "")}
    kept |= {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_"))}
    command = [sys.executable, "-S", "-s", "-B", *arguments]
    return subprocess.run(command, cwd=project, env=kept | variables, capture_output=True, text=True, check=False)


def environment_of(folder: Path, lock: Path) -> Path:
    """An environment as the container file and the devices make it; returns its folder of programs."""
    run(folder, sys.executable, "-m", "venv", str(folder / "venv"))
    programs = folder / "venv" / BINARIES
    install = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    run(folder, str(programs / "python"), "-m", "pip", *install, "-r", str(lock))
    return programs


# Bare Python: the jobs that may write install nothing


def test_every_command_has_its_environment():
    kinds = {kind: of(kind) for kind in ("bare", "serve", "locked")}
    assert len(kinds["bare"]) > 8 and len(kinds["serve"]) == 1 and len(kinds["locked"]) > 12
    assert ("python", "-I", "bootstrap.py") in kinds["bare"] and (*STEPS, "sign") in kinds["bare"]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (f"{' '.join(STEPS)} seal", "slm release seal", "runs before its environment is made|whose is"),
        (f"{' '.join(STEPS)} seal", "make seal", "runs before its environment is made"),
        (f"{' '.join(STEPS)} seal", ".venv/bin/python -m slm", "runs before its environment is made"),
        (f"{' '.join(STEPS)} seal", "python3 -m pip install requests", "installs without hashes"),
        (f"{' '.join(STEPS)} seal", "echo a && pip install requests", "installs without hashes"),
    ],
)
def test_a_command_without_its_environment_is_found(old: str, new: str, said: str, tmp_path: Path):
    shutil.copytree(BODY / ".github", tmp_path / ".github")
    path = tmp_path / ".github" / "workflows" / "main.yml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(AssertionError, match=said):
        commands(tmp_path)


def modules_of(words: tuple[str, ...]) -> list[str]:
    """The module that a command runs, by `-m` or by the launcher of the workflows."""
    return [words[i + 1] for i, word in enumerate(words) if word in ("-m", STEPS[2])][:1]


@pytest.mark.parametrize("words", of("bare"), ids=" ".join)
def test_jobs_without_packages_import_the_standard_library_alone(words: tuple[str, ...]):
    names = outside(BODY, *modules_of(words))
    if words[-1] == "bootstrap.py":
        names = {name.partition(".")[0] for name in imported(ast.parse((BODY / "bootstrap.py").read_text(encoding="utf-8")))}
    assert names and not names - sys.stdlib_module_names


@pytest.mark.attack
@pytest.mark.parametrize("line", ["import yaml", "def f():\n    from requests import get", "import slm.task.answers"])
def test_a_package_in_a_bare_job_is_found(line: str, tmp_path: Path):
    shutil.copytree(BODY / "slm", tmp_path / "slm")
    with (tmp_path / "slm" / "github.py").open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    assert outside(tmp_path, "slm.ci.steps") - sys.stdlib_module_names


@pytest.mark.twin
@pytest.mark.parametrize("line", ["import tarfile", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import yaml"])
def test_the_standard_library_in_a_bare_job_passes(line: str, tmp_path: Path):
    shutil.copytree(BODY / "slm", tmp_path / "slm")
    with (tmp_path / "slm" / "github.py").open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    assert not outside(tmp_path, "slm.ci.steps") - sys.stdlib_module_names


# Signing and set-up make environments of their own: they have tests of their own.
RUNNABLE = [words for words in of("bare") if words[-1] not in ("sign", "bootstrap.py")]


@pytest.mark.parametrize("words", RUNNABLE, ids=" ".join)
def test_bare_commands_run_as_far_as_they_go_without_github(words: tuple[str, ...], baked: Path):
    done = bare(baked, *words[1:], GITHUB_API_URL="http://127.0.0.1:9", GITHUB_REPOSITORY="acme/slm")
    assert not MISSING.search(done.stderr), done.stderr
    assert "usage:" not in done.stderr, done.stderr  # the workflow and the program agree on the arguments


# The environment of set-up

HELP = """
import contextlib, io, json, sys
from importlib.util import find_spec
from slm.cli.app import main
names, commands = json.loads(sys.argv[1])
missing = [name for name in names if find_spec(name) is None]
refused = []
for words in commands:
    sys.argv = ["slm", *words, "--help"]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        if end.code:
            refused.append([words, said.getvalue()])
print(json.dumps([missing, refused]))
"""


def slm_words(project: Path) -> list[list[str]]:
    """What workflows ask of `slm`, by itself or by make: the words of the command without its values."""
    asked = []
    for words in of("locked"):
        if words[0] == "make":
            told = run(project, "make", "--dry-run", *words[1:]).stdout
            asked += [shlex.split(line) for line in told.splitlines() if " -m slm " in line]
        elif "slm" in words:
            asked.append(list(words))
    return [words_of(words[words.index("slm") + 1 :]) for words in asked]


def words_of(words: list[str]) -> list[str]:
    """The command and its subcommand, if it has one: what `--help` goes behind."""
    groups = ("release", "ci", "device", "teacher")
    return words[:2] if words[0] in groups else words[:1]


@pytest.mark.slow
def test_locked_commands_exist_and_find_every_package(project: Path):
    names = outside(BODY, *(m.relative_to(BODY).with_suffix("").as_posix().replace("/", ".") for m in BODY.glob("[sp][li][mp]*/**/*.py")))
    names -= {*EXTRAS, *sys.stdlib_module_names}
    assert {"torch", "onnxruntime_genai", "great_expectations", "openai"} <= names
    asked = slm_words(project)
    assert len(asked) > 12
    missing, refused = json.loads(python(project, "-c", HELP, json.dumps([sorted(names), asked])).stdout.splitlines()[-1])
    assert not missing and not refused
    assert "usage" in run(project, str(project / ".venv" / BINARIES / "dvc"), "gc", "--help").stdout


@pytest.mark.full
@pytest.mark.parametrize(("name", "lock"), [*sorted(EXTRAS.items()), *((f"dvc_{kind}", "remotes") for kind in ("s3", "azure", "gs"))])
def test_an_extra_brings_what_it_is_for(name: str, lock: str, project: Path, tmp_path: Path):
    install_extra(lock, project, tmp_path / "extra")
    code = f"import sys; sys.path.append({str(tmp_path / 'extra')!r}); import {'azure.identity.aio' if name == 'azure' else name}"
    done = python(project, "-c", code, check=False)
    assert not done.returncode, done.stderr


# The container, and the devices: one lock


class Recipe:
    """What the container file does after its base image."""

    def __init__(self, project: Path) -> None:
        text = (project / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
        self.lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
        unknown = {word for word, _ in self.lines} - {"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
        assert not unknown, f"Dockerfile: {unknown} is not carried out here"

    def all(self, word: str) -> list[str]:
        return [rest for first, rest in self.lines if first == word]

    def copy(self, context: Path, target: Path) -> None:
        for rest in self.all("COPY"):
            *sources, into = rest.split()
            for source in sources:
                path = context / source
                if path.is_dir():
                    shutil.copytree(path, target / into)
                else:
                    place = target / into / path.name if into.endswith(("/", ".")) else target / into
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, place)

    def command(self) -> list[str]:
        (rest,) = self.all("ENTRYPOINT")
        return json.loads(rest)


@pytest.fixture(scope="module")
def serve_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of(tmp_path_factory.mktemp("serve"), BODY / "requirements" / "serve.txt")


def lacking(project: Path, scratch: Path) -> set[str]:
    """What the command of the container file imports, and neither its copies nor its lock bring."""
    recipe = Recipe(project)
    assert recipe.all("RUN") == ["pip install --no-cache-dir --require-hashes -r serve.txt"]
    (project / "image" / "model").mkdir(parents=True, exist_ok=True)
    recipe.copy(project, scratch)
    (module,) = modules_of(tuple(recipe.command()))
    files = {path.relative_to(project) for path in within(project, module)}
    lock = (project / "requirements" / "serve.txt").read_text(encoding="utf-8")
    locked = {name.lower().replace("-", "_") for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    packages = outside(project, module, "slm.ci.device") - sys.stdlib_module_names
    return {path.as_posix() for path in files if not (scratch / path).exists()} | (packages - locked)


def container_of(folder: Path) -> Path:
    for name in ("slm", "requirements"):
        shutil.copytree(BODY / name, folder / name)
    shutil.copy(BODY / "Dockerfile", folder)
    return folder


@pytest.mark.twin
def test_the_container_file_brings_all_that_its_command_imports(tmp_path: Path):
    assert not lacking(container_of(tmp_path / "project"), tmp_path / "app")


@pytest.mark.attack
@pytest.mark.parametrize("name", ["slm/errors.py", "slm/inference/genai.py", "slm/task/strict.py", "slm/serving/server.py"])
def test_a_file_that_the_container_misses_is_named(name: str, tmp_path: Path):
    project = container_of(tmp_path / "project")
    text = (project / "Dockerfile").read_text(encoding="utf-8")
    assert f" {name} " in text
    (project / "Dockerfile").write_text(text.replace(f" {name} ", " "), encoding="utf-8")
    assert lacking(project, tmp_path / "app") == {name}


@pytest.mark.attack
@pytest.mark.parametrize("name", ["starlette", "uvicorn", "onnxruntime-genai", "regex"])
def test_a_package_that_the_lock_misses_is_named(name: str, tmp_path: Path):
    project = container_of(tmp_path / "project")
    lock = project / "requirements" / "serve.txt"
    lock.write_text(lock.read_text(encoding="utf-8").replace(f"{name}==", "other=="), encoding="utf-8")
    assert lacking(project, tmp_path / "app") == {name.replace("-", "_")}


def within(project: Path, module: str) -> set[Path]:
    """Files of the project that a module imports, its own among them."""
    seen: set[Path] = set()
    waiting = files_of(project, module)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += [f for name in imported(ast.parse(path.read_text(encoding="utf-8"))) for f in files_of(project, name)]
    return seen


@pytest.mark.full
def test_the_container_answers(serve_programs: Path, sealed: Path, tmp_path: Path):
    """Its lines without docker: the lock, the files that it copies and nothing else, its command, its health check."""
    context = tmp_path / "context"
    for name in ("slm", "requirements"):
        shutil.copytree(BODY / name, context / name)
    shutil.copytree(sealed, context / "sealed")
    prepared = bare(context, "-c", "from slm.ci.container import prepare_context; prepare_context()")
    assert prepared.returncode == 0, prepared.stderr
    recipe, app = Recipe(BODY), tmp_path / "app"
    recipe.copy(context, app)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *words = recipe.command()
    variables = {"PATH": f"{serve_programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "SLM_TOKEN": "a-token-of-the-tests"}
    log = tmp_path / "server.log"
    with log.open("w", encoding="utf-8") as stream:
        command = [str(serve_programs / program), "-B", *words, "--port", str(port)]
        server = subprocess.Popen(command, cwd=app, env=variables, stdout=stream, stderr=stream)
    try:
        asked = f"ask_container('http://127.0.0.1:{port}', '{variables['SLM_TOKEN']}')"
        told = bare(context, "-c", f"from slm.ci.container import ask_container; print({asked})")
        assert told.returncode == 0, told.stderr + log.read_text(encoding="utf-8")
        (health,) = recipe.all("HEALTHCHECK")
        check = json.loads(health.removeprefix("CMD ").replace(":8000", f":{port}"))
        run(app, str(serve_programs / check[0]), *check[1:])
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


@pytest.mark.full
def test_a_device_asks_the_package_with_the_lock_of_devices_alone(serve_programs: Path, sealed: Path, tmp_path: Path):
    for name in ("slm", "requirements"):
        shutil.copytree(BODY / name, tmp_path / name)
    (words,) = of("serve")
    (tmp_path / ".github").mkdir()
    shutil.copy(BODY / ".github" / "steps.py", tmp_path / ".github")
    shutil.copytree(sealed, tmp_path / words[-1])
    done = run(tmp_path, str(serve_programs / "python"), "-B", *words[1:], "--examples", "5", check=False)
    assert not MISSING.search(done.stderr) and json.loads(done.stdout.splitlines()[0])["asked"] == 5, done.stderr


# Signing


@pytest.fixture(scope="module")
def signing(baked: Path) -> tuple[Path, subprocess.CompletedProcess]:
    """The release's own step, on a machine without an identity: the project, and what the step said."""
    folder = baked / "sealed"
    folder.mkdir()
    (folder / "SEAL.json").write_text('{"name": "slm"}\n', encoding="utf-8")
    (folder / "slm.tar.gz").write_bytes(os.urandom(100_000))
    (baked / "release").mkdir()
    return baked, bare(baked, "-m", "slm.ci.steps", "sign")


@pytest.mark.full
def test_signing_goes_as_far_as_the_identity(signing: tuple[Path, subprocess.CompletedProcess]):
    project, done = signing
    said = done.stdout + done.stderr
    assert not MISSING.search(said), said
    assert done.returncode == 2 and "model_signing sign sigstore" in said, said
    assert re.search("identity|credential", said, re.IGNORECASE), said
    assert not (project / "release" / "sealed.sig").exists()


def sign_and_verify(project: Path, change: Path | None = None) -> subprocess.CompletedProcess:
    """With a key of its own in place of the workflow's identity, by the program that the release installs."""
    program = str(project / ".signing" / BINARIES / "model_signing")
    for name, words in {"key": ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"], "pub": ["ec", "-pubout", "-in"]}.items():
        extra = [str(project / "key.pem")] + (["-out", str(project / "pub.pem")] if name == "pub" else [])
        run(project, "openssl", *words, *extra)
    run(project, program, "sign", "key", "--private_key", "key.pem", "--signature", "release/local.sig", "sealed")
    if change:
        change.write_bytes(change.read_bytes()[:-1] + b"x")
    words = ["verify", "key", "--public_key", "pub.pem", "--signature", "release/local.sig", "sealed"]
    return run(project, program, *words, check=False)


@pytest.mark.full
@pytest.mark.twin
def test_what_was_signed_is_verified(signing: tuple[Path, subprocess.CompletedProcess]):
    done = sign_and_verify(signing[0])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full
@pytest.mark.attack
def test_one_changed_byte_breaks_the_signature(signing: tuple[Path, subprocess.CompletedProcess]):
    project = signing[0]
    done = sign_and_verify(project, change=project / "sealed" / "slm.tar.gz")
    assert done.returncode and not MISSING.search(done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.full
@pytest.mark.attack
def test_a_module_that_the_lock_of_signing_misses_is_found(signing: tuple[Path, subprocess.CompletedProcess]):
    """It comes last: it takes a package out of the environment of these tests."""
    project = signing[0]
    programs = project / ".signing" / BINARIES
    run(project, str(programs / "python"), "-m", "pip", "uninstall", "--quiet", "--yes", "pyopenssl")
    assert MISSING.search(run(project, str(programs / "model_signing"), "sign", "sigstore", "sealed", check=False).stderr)
