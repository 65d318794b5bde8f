"""The command `slm`: help runs nothing, what is unknown is refused, and nothing heavy is imported for it."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from slm.cli.app import app
from slm.cli.root import EXIT_CODES, Panel
from slm.cli.stages import Stage
from slm.errors import UserError
from slm.processes import environment, run_child
from slm.stage import read_arguments

ROOT = Path(__file__).parent.parent
STAGES = sorted(p.stem for p in (ROOT / "pipeline").glob("*.py") if p.stem != "__init__")
TREE = get_command(app)


def walk(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = [(path, command)]
    for name, inner in getattr(command, "commands", {}).items():
        found += walk(inner, (*path, name))
    return found


EVERY = walk(TREE)
LEAVES = [path for path, command in EVERY if not hasattr(command, "commands")]


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, in which no command may run."""

    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("it ran")

    monkeypatch.chdir(tmp_path)
    for info in [app, *(group.typer_instance for group in app.registered_groups)]:
        for command in info.registered_commands:
            monkeypatch.setattr(command, "callback", _like(command.callback, run))


def _like(callback: Any, run: Any) -> Any:
    """`run` with the signature and the help of the command's own function."""
    import functools

    return functools.wraps(callback)(run)


@pytest.mark.parametrize("path", [path for path, _ in EVERY], ids=" ".join)
def test_help_says_what_it_does_and_runs_nothing(path: tuple[str, ...], unheard: None):
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0 and "Usage: " in done.output, done.output
    names = getattr(dict(EVERY)[path], "commands", {})
    assert all(re.search(rf"^  {name}  +\S", done.output, re.MULTILINE) for name in names)
    assert "..." not in done.output.replace("[ARGS]...", "").replace("]...", "")  # no sentence is cut
    assert not list(Path().iterdir())


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
@pytest.mark.parametrize("word", ["--unheard-of", "-Z"])
def test_an_unknown_option_is_refused(path: tuple[str, ...], word: str, unheard: None):
    done = CliRunner().invoke(app, [*path, word])
    assert done.exit_code == 2, done.output


def test_every_command_has_a_help_and_every_group_a_panel():
    for path, command in EVERY[1:]:
        assert command.help and command.help.strip().endswith("."), path
        assert len(path) > 1 or command.rich_help_panel in list(Panel), path


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_a_help_says_what_the_command_reads_writes_and_costs(path: tuple[str, ...]):
    """Three sentences, in this order; others may stand between them."""
    said = " ".join(dict(EVERY)[path].help.split())
    assert re.search(r"\. Reads \S.*\. Writes \S.*\. Takes \S.*\.$", said), said


@pytest.mark.parametrize("path", [path for path, _ in EVERY if path not in LEAVES], ids=" ".join)
def test_a_group_without_a_command_prints_its_help(path: tuple[str, ...], unheard: None):
    done, asked = CliRunner().invoke(app, path), CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0 and done.stdout.startswith("Usage: "), done.output
    assert done.stdout == asked.stdout


def test_wrong_usage_prints_the_usage():
    for words in (["unheard-of"], ["teacher", "unheard-of"], ["profile", "--unheard-of"], ["stage"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2 and done.stderr.startswith("Usage: "), done.output


def test_a_programs_exit_code_is_passed_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("slm.cli.tools.run_child", lambda *_: 5)
    assert CliRunner().invoke(app, ["test"]).exit_code == 5
    child = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    if os.name != "nt":
        assert run_child(sys.executable, "-c", child) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("slm.serving.server", ["--mod", "X"]),
        ("slm.ci.device", ["sealed", "--exam", "1"]),
        ("slm.inference.asker", ["folder", "--max-new-tokens", "1", "--thr", "1"]),
    ],
)
def test_a_shortened_option_is_refused(module: str, words: list[str]):
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("usage: ") and "unrecognized arguments" in done.stderr


def test_help_imports_typer_and_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "slm", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "typer" in names
    heavy = {
        "torch",
        "pandas",
        "numpy",
        "great_expectations",
        "transformers",
        "pydantic",
        "dvc",
        "optuna",
        "rich",
    }
    assert not {name.split(".")[0] for name in names} & heavy
    ours = {name for name in names if name.startswith("slm.") and not name.startswith("slm.cli")}
    assert ours == {"slm.errors", "slm.processes"}


def test_exit_codes_are_documented_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    help_text = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert all(f"{code}: {means}." in help_text for code, means in EXIT_CODES.items())
    done = CliRunner().invoke(app, ["profile"])
    assert (done.exit_code, done.stderr) == (2, "error: params.yaml: no such file\n")

    def stopped(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("slm.config.edit.apply_profile", stopped)
    done = CliRunner().invoke(app, ["profile", "quick"])
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


# Stages
def test_a_stage_of_the_pipeline_is_known_by_name():
    assert sorted(get_args(Stage)) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_refuses_what_it_does_not_know(name: str, monkeypatch: pytest.MonkeyPatch):
    main = importlib.import_module(f"pipeline.{name}").main
    monkeypatch.setattr(sys, "argv", [name, "--unheard-of"])
    with pytest.raises(UserError, match=rf"`python -m pipeline\.{name} --help`"):
        read_arguments(main)


def test_a_stage_has_choices(monkeypatch: pytest.MonkeyPatch):
    main = importlib.import_module("pipeline.evaluate").main
    monkeypatch.setattr(sys, "argv", ["evaluate", "int4", "models/int4"])
    assert read_arguments(main) == ["int4", "models/int4"]
    monkeypatch.setattr(sys, "argv", ["evaluate", "int3", "models/int3"])
    with pytest.raises(UserError, match="invalid choice: 'int3'"):
        read_arguments(main)


STAGE = '''"""Write a file."""

from pathlib import Path

from slm.stage import stage


@stage
def main(name: str) -> None:
    Path(name).write_text("ran")


if __name__ == "__main__":
    main()
'''


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["made"], 0, ""),
        (["--help"], 0, "Write a file."),
        ([], 2, "error: the following arguments are required: name; `python -m mine --help` lists"),
        (["made", "more"], 2, "error: unrecognized arguments: more"),
        (["made", "--unheard-of"], 2, "error: unrecognized arguments: --unheard-of"),
    ],
)
def test_a_stage_that_is_run_reads_its_command_line(words: list[str], code: int, said: str, tmp_path: Path):
    (tmp_path / "mine.py").write_text(STAGE, encoding="utf-8")
    command = [sys.executable, "-m", "mine", *words]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
    assert (tmp_path / "made").exists() == (words == ["made"])


# What is started
def test_children_find_this_environments_programs_and_no_telemetry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    found = environment()
    assert found["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"
    monkeypatch.setenv("PATH", found["PATH"])
    assert environment()["PATH"] == found["PATH"]
    assert found["HF_HUB_OFFLINE"] == found["DVC_NO_ANALYTICS"] == "1"
    assert found["MALLOC_MMAP_THRESHOLD_"] == "4294967296"


@pytest.mark.skipif(os.name == "nt", reason="a group of processes is signalled")
def test_a_child_that_is_interrupted_ends_in_its_own_way(tmp_path: Path):
    child = (
        "import time\ntry:\n    print('up', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n    "
        "time.sleep(1); print('saved', flush=True)"
    )
    parent = f"import sys\nfrom slm.processes import run_child\nrun_child(sys.executable, '-c', {child!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate()[0] == "saved\n" and process.returncode


# make
def test_each_make_target_is_one_line_that_calls_a_command():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+): setup ## \S.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    known = {" ".join(path) for path in LEAVES}
    for target, recipe in targets:
        (line,) = recipe.splitlines()
        assert line.startswith("\t$(SLM) "), target
        words = line.split()[1:]
        assert words[0] in known or " ".join(words[:2]) in known, target
    phony = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    assert sorted(phony) == sorted(["help", "setup", *(target for target, _ in targets)])
