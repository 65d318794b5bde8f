"""Baking: every choice, every hostile answer, and the raw body as a project of its own."""

import ast
import configparser
import itertools
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.bake import TEMPLATE, bake

BODY = TEMPLATE / "{{cookiecutter.project}}"
COMMIT = "a" * 40
RENDERED = {"params.yaml", "pyproject.toml", "README.md", "LICENSE", ".dvc/config", ".github/CODEOWNERS"}

SUPPORTED = [
    {},
    *({"license": v} for v in ("Apache-2.0", "MIT", "BSD-3-Clause", "Proprietary")),
    *(
        {"teacher": t, "base_model": b, "data_remote": r}
        for t, b, r in itertools.product(("local", "endpoint"), ("bundled", f"Qwen/Qwen2.5-0.5B@{COMMIT}"), ("none", "s3", "azure", "gcs"))
    ),
    {"project": "a1"},
    {"project": "x" * 63},
    {"owner": "a-b-c"},
]
CHOICES = ("license", "teacher", "data_remote")
REFUSED = [
    ("license", "GPL-3.0"),
    ("teacher", "oracle"),
    ("data_remote", "ftp"),
    ("base_model", "Qwen/Qwen2.5-0.5B"),
    ("base_model", "Qwen/Qwen2.5-0.5B@main"),
    ("project", "My_SLM"),
    ("project", "a"),
    ("project", "x" * 64),
    ("owner", "-a"),
    ("owner", "a" * 40),
]

HOSTILE_TEXT = [
    "it's", 'a "quoted" word', "'''", '"""', "\\", "ends in \\", "\\n \\x41 \\u0041", "a: b", "- a", "-rf /", "--help", "# not a comment", "a # b",
    "{a: b}", "[a]", "&a *b", "!!python/object:os.system", "| >", "%TAG", "@a", "`id`", "$(id)", "${HOME}", "${{ secrets.X }}", "<script>alert(1)</script>",
    "a & b < c > d", "]]>", "null", "true", "yes", "~", "0x10", "1e3", "2026-11-24", "import os", "class", "__import__('os')", "../../etc/passwd", "/etc/passwd",
    "C:\\Windows", "emoji 🙂 👩‍🚀", "日本語", "עברית", "naïve café", "tab\\tno", "=1+1", "a=b", "[tool.ruff]", "%s %d", "{0}", "x" * 200, "a\u00a0b",
]  # fmt: skip
REFUSED_TEXT = [
    "",
    " ",
    "x" * 201,
    "x" * 300,
    "two\nlines",
    "cr\rlf",
    "a\tb",
    "bell\x07",
    "\u202eright to left",
    "zero\u200bwidth",
    "\ufeffbom",
    "sep\u2028a",
]
HOSTILE_SLUG = [
    "../evil",
    "..",
    "/abs",
    "a/b",
    "a\\b",
    "-rf",
    "con",
    "nul",
    "class",
    "import",
    "slm",
    "a b",
    "a;b",
    "$(id)",
    "`id`",
    "ünï",
    "🙂",
    "a--b",
    "a-",
    "1a",
    "A",
]
HOSTILE_OWNER = ["a b", "a/b", "a--b", "-", "@a", "a\n* @evil", "$(id)", "a" * 300]


def read_yaml(path: Path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def run_cli(output: Path, **answers: str) -> subprocess.CompletedProcess:
    """The command line as a person uses it."""
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--default-config", "-o", str(output / "out")]
    command += [f"{name}={value}" for name, value in answers.items()]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "utf-8"}, check=False
    )


@pytest.mark.parametrize("answers", SUPPORTED, ids=lambda a: ",".join(a.values()) or "defaults")
def test_supported(answers: dict[str, str], tmp_path: Path):
    project = bake(tmp_path / "my-slm", **answers)
    params = read_yaml(project / "params.yaml")
    base = answers.get("base_model", "bundled")
    assert params["models"]["source"] == ("wheel" if base == "bundled" else "hub")
    if base != "bundled":
        assert (params["models"]["hub"]["repo"], params["models"]["hub"]["revision"]) == tuple(base.split("@"))
    assert params["synthesize"]["teacher"] == answers.get("teacher", "local")
    assert params["package"]["name"] == project.name == answers.get("project", "my-slm")
    remote = answers.get("data_remote", "none")
    config = configparser.ConfigParser()
    config.read(project / ".dvc" / "config")
    scheme = {"s3": "s3://", "azure": "azure://", "gcs": "gs://"}.get(remote)
    assert config.has_option("core", "remote") == (scheme is not None)
    if scheme:
        assert config["'remote \"storage\"'"]["url"].startswith(scheme)
    licence = {"Apache-2.0": "Apache License", "MIT": "MIT License", "BSD-3-Clause": "BSD 3-Clause", "Proprietary": "All rights reserved"}
    assert licence[answers.get("license", "Apache-2.0")] in (project / "LICENSE").read_text(encoding="utf-8")
    assert f"@{answers.get('owner', 'your-github-name')}" in (project / ".github" / "CODEOWNERS").read_text(encoding="utf-8")
    for path in RENDERED:
        assert "cookiecutter." not in (project / path).read_text(encoding="utf-8"), path
    log = subprocess.run(["git", "log", "--format=%s"], cwd=project, capture_output=True, text=True, check=True)
    assert log.stdout.split("\n")[:-1] == ["Start from cookiecutter-slmops"]
    status = subprocess.run(["git", "status", "--porcelain", "--ignored"], cwd=project, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_everything_else_is_copied_untouched_and_fast(tmp_path: Path):
    start = time.perf_counter()
    project = bake(tmp_path / "my-slm")
    seconds = time.perf_counter() - start
    known = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", "."], cwd=BODY, capture_output=True, text=True, check=True
    )
    files = [name for name in known.stdout.split("\0") if name]
    assert len(files) > 50
    for name in files:
        if name not in RENDERED:
            assert (project / name).read_bytes() == (BODY / name).read_bytes(), name
    print(f"bake_s {seconds:.2f}")


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda v: str(v)[:20])
def test_refused(name: str, value: str, tmp_path: Path):
    check_refused(name, value, tmp_path)


def check_refused(name: str, value: str, tmp_path: Path) -> None:
    """One line names the answer and the remedy, no traceback, and nothing is left behind."""
    done = run_cli(tmp_path, **{name: value})
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith(f"{name}: ") and "cannot be used: " in line]
    if name in CHOICES:  # cookiecutter's own refusal of what is no choice
        said = [line for line in done.stderr.splitlines() if value in line and name in line][:1]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr or name in CHOICES
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("value", HOSTILE_TEXT, ids=range(len(HOSTILE_TEXT)))
@pytest.mark.parametrize("name", ["description", "author"])
def test_hostile_text_is_rendered_as_it_is(name: str, value: str, tmp_path: Path):
    # Without questions, cookiecutter itself renders what an answers file holds: only there do braces mean something.
    literal = value.replace("{{", "{% raw %}{{").replace("}}", "}}{% endraw %}")
    project = bake(tmp_path / "my-slm", **{name: literal})
    found = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (found["description"] if name == "description" else found["authors"][0]["name"]) == value
    read_yaml(project / "params.yaml")


@pytest.mark.parametrize("value", REFUSED_TEXT, ids=range(len(REFUSED_TEXT)))
def test_hostile_text_is_refused(value: str, tmp_path: Path):
    check_refused("description", value, tmp_path)


@pytest.mark.parametrize("value", HOSTILE_SLUG)
def test_hostile_slug_is_refused(value: str, tmp_path: Path):
    check_refused("project", value, tmp_path)


@pytest.mark.parametrize("value", HOSTILE_OWNER, ids=range(len(HOSTILE_OWNER)))
def test_hostile_owner_is_refused(value: str, tmp_path: Path):
    check_refused("owner", value, tmp_path)


def test_cruft_gives_the_same_tree(tmp_path: Path):
    source = tmp_path / "template"
    subprocess.run(["git", "clone", "--quiet", str(TEMPLATE), str(source)], check=True)
    plain = Path(bake_from(source, tmp_path / "plain"))
    command = [sys.executable, "-m", "cruft", "create", str(source), "--no-input", "--output-dir", str(tmp_path / "cruft")]
    subprocess.run(command, check=True, capture_output=True)
    assert tree(plain) == {k: v for k, v in tree(tmp_path / "cruft" / plain.name).items() if k != ".cruft.json"}


def bake_from(source: Path, output: Path) -> str:
    from cookiecutter.main import cookiecutter

    return cookiecutter(str(source), no_input=True, output_dir=str(output), default_config=True)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and ".git" not in p.relative_to(folder).parts[:1]
    }


def test_raw_body_parses():
    for path in BODY.rglob("*"):
        relative = path.relative_to(BODY)
        if not path.is_file() or relative.parts[0] in (".git", ".venv"):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            ast.parse(text)
            assert not re.search(r"\{\{ *cookiecutter|\{%", text), path
        elif path.suffix in (".yaml", ".yml"):
            read_yaml(path)
        elif path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix == ".json":
            json.loads(text)
        if relative.parts[0] in ("pipeline", "slm"):
            assert len(text.splitlines()) <= 300 or path.suffix != ".py", path


def test_at_most_nine_questions_each_with_a_prompt():
    spec = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    questions = [k for k in spec if not k.startswith("_")]
    assert len(questions) <= 9
    assert set(spec["__prompts__"]) == set(questions)
