"""Baking: every choice, every hostile answer, and the raw body as a project of its own."""

import ast
import configparser
import fnmatch
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter
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
    "",
    ".",
    "x/..",
    "a/../..",
    "~",
    " my-slm",
    "a\nb",
    "x" * 300,
    "json",
    "torch",
    "import-linter",
    "not_a_slug",
]
HOSTILE_BASE = [
    "",
    "Bundled",
    "owner/name",
    f"owner/name@{'A' * 40}",
    f"owner/name@{COMMIT}a",
    f"../name@{COMMIT}",
    f"owner/..@{COMMIT}",
    f"a/b/c@{COMMIT}",
    f"owner/name@{COMMIT}\n",
    f'owner/na"me@{COMMIT}',
    f"owner/$(id)@{COMMIT}",
]
HOSTILE_OWNER = ["a b", "a/b", "a--b", "-", "@a", "a\n* @evil", "$(id)", "a" * 300]


def read_yaml(path: Path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def run_cli(folder: Path, *options: str, typed: str | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """The command line as a person uses it, in `folder`; `typed` answers the questions."""
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--default-config"]
    command += [*(["--no-input"] if typed is None else []), *options]
    env = os.environ | {"PYTHONIOENCODING": "utf-8"} | (env or {})
    return subprocess.run(command, cwd=folder, input=typed, capture_output=True, text=True, encoding="utf-8", env=env, check=False)


def git_log(project: Path) -> list[str]:
    done = subprocess.run(["git", "log", "--format=%s"], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


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
    assert git_log(project) == ["Start from cookiecutter-slmops"]
    status = subprocess.run(["git", "status", "--porcelain", "--ignored"], cwd=project, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_everything_else_is_copied_untouched(tmp_path: Path):
    project = bake(tmp_path / "project")
    known = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", "."], cwd=BODY, capture_output=True, text=True, check=True
    )
    files = [name for name in known.stdout.split("\0") if name]
    assert len(files) > 50
    copied = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))["_copy_without_render"]
    for name in files:
        # A new file of the body must say which it is: Jinja would eat the braces of a workflow without a word.
        assert any(fnmatch.fnmatch(name, pattern) for pattern in copied) != (name in RENDERED), name
        if name not in RENDERED:
            assert (project / name).read_bytes() == (BODY / name).read_bytes(), name


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda v: str(v)[:20])
def test_refused(name: str, value: str, tmp_path: Path):
    check_refused(name, value, tmp_path)


def check_refused(name: str, value: str, tmp_path: Path, output: str = "out") -> None:
    """One line names the answer and the remedy, no traceback; nothing is left behind and nothing of the user's is gone."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "canary").write_text("the user's", encoding="utf-8")
    before = set(tmp_path.rglob("*"))
    done = run_cli(folder, "-o", output, f"{name}={value}")
    assert done.returncode != 0
    if name in CHOICES:  # cookiecutter's own refusal of what is no choice
        assert value in done.stderr.splitlines()[-1] and name in done.stderr.splitlines()[-1]
    else:
        assert re.fullmatch(rf"{name}: .{{1,60}} cannot be used: .+\n", done.stderr), done.stderr
    assert set(tmp_path.rglob("*")) - {folder / "out"} == before


@pytest.mark.parametrize("value", HOSTILE_TEXT, ids=range(len(HOSTILE_TEXT)))
def test_hostile_text_is_rendered_as_it_is(value: str, tmp_path: Path):
    # Without questions, cookiecutter itself renders what an answers file holds: only there do braces mean something.
    literal = value.replace("{{", "{% raw %}{{").replace("}}", "}}{% endraw %}")
    project = bake(tmp_path / "my-slm", project_name=literal, description=literal, author=literal)
    found = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert found["description"] == value
    assert found["authors"] == [{"name": value}]
    assert (project / "README.md").read_text(encoding="utf-8").split("\n")[0] == f"# {value}"
    assert f"Copyright {value}\n" in (project / "LICENSE").read_text(encoding="utf-8")
    assert read_yaml(project / "params.yaml")["package"]["name"] == "my-slm"


def test_braces_that_are_typed_stay_as_they_are(tmp_path: Path):
    value = "{{ 7 * 7 }} ${{ secrets.X }} {% raw %} {# no"
    done = run_cli(tmp_path, typed=f"\n\n{value}\n" + "\n" * 6)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "my-slm" / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["description"] == value


@pytest.mark.parametrize("value", REFUSED_TEXT, ids=range(len(REFUSED_TEXT)))
def test_hostile_text_is_refused(value: str, tmp_path: Path):
    check_refused("description", value, tmp_path)


@pytest.mark.parametrize("output", [".", "out"])
@pytest.mark.parametrize("value", HOSTILE_SLUG, ids=range(len(HOSTILE_SLUG)))
def test_hostile_slug_is_refused(value: str, output: str, tmp_path: Path):
    check_refused("project", value, tmp_path, output)


@pytest.mark.parametrize("value", HOSTILE_BASE, ids=range(len(HOSTILE_BASE)))
def test_hostile_base_model_is_refused(value: str, tmp_path: Path):
    check_refused("base_model", value, tmp_path)


@pytest.mark.parametrize("name", ["project_name", "project", "description", "author", "base_model", "owner"])
def test_null_byte_is_refused(name: str, tmp_path: Path, capfd):
    with pytest.raises(FailedHookException):  # no command line can hold one, an answers file can
        bake(tmp_path / "my-slm", **{name: "a\0b"})
    assert len([line for line in capfd.readouterr().err.splitlines() if line.startswith(f"{name}: ")]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("project_name", "slug"), [("My SLM", "my-slm"), ("Ann's Café 2.0", "ann-s-cafe-2-0"), ("ab " * 60, ("ab-" * 21)[:62])]
)
def test_slug_follows_from_the_name(project_name: str, slug: str, tmp_path: Path):
    assert Path(bake_from(TEMPLATE, tmp_path, project_name=project_name)).name == slug


def test_commit_needs_no_identity_and_no_signing_key(tmp_path: Path):
    (tmp_path / "gitconfig").write_text("[commit]\n    gpgsign = true\n", encoding="utf-8")
    done = run_cli(tmp_path, env={"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"})
    assert done.returncode == 0, done.stderr
    assert git_log(tmp_path / "my-slm") == ["Start from cookiecutter-slmops"]


def test_commit_is_not_made_in_the_repository_around(tmp_path: Path):
    subprocess.run(["git", "init", "--quiet", "outer"], cwd=tmp_path, check=True)
    done = run_cli(tmp_path, env={"GIT_DIR": str(tmp_path / "outer" / ".git")})
    assert done.returncode == 0, done.stderr
    assert git_log(tmp_path / "my-slm") == ["Start from cookiecutter-slmops"]
    assert not any(path.is_file() for path in (tmp_path / "outer" / ".git" / "objects").rglob("*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows finds programs beside PATH")
def test_without_git_one_line_says_what_to_do(tmp_path: Path):
    done = run_cli(tmp_path, env={"PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("git made no first commit")]) == 1
    assert (tmp_path / "my-slm" / "params.yaml").exists()


@pytest.mark.parametrize("value", HOSTILE_OWNER, ids=range(len(HOSTILE_OWNER)))
def test_hostile_owner_is_refused(value: str, tmp_path: Path):
    check_refused("owner", value, tmp_path)


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The template as it is in the work tree, in a repository of its own: cruft reads only what is committed."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    known = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, encoding="utf-8", check=True).stdout.split("\0")
    for name in known:
        if name and (TEMPLATE / name).is_file():
            target = tmp_path / "template" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((TEMPLATE / name).read_bytes())
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "template")
    git(tmp_path / "template", "add", "--all")
    git(tmp_path / "template", "commit", "--quiet", "--message", "one")
    return tmp_path / "template"


def cruft(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "cruft", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cruft_gives_the_same_tree(source: Path, tmp_path: Path):
    plain = Path(bake_from(source, tmp_path / "plain"))
    cruft(tmp_path, "create", str(source), "--no-input", "--default-config", "--output-dir", str(tmp_path / "cruft"))
    assert tree(plain) == {k: v for k, v in tree(tmp_path / "cruft" / plain.name).items() if k != ".cruft.json"}


def test_cruft_brings_a_later_template(source: Path, tmp_path: Path):
    cruft(tmp_path, "create", str(source), "--no-input", "--default-config")
    project = tmp_path / "my-slm"
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "cruft")
    with (source / BODY.name / "gates.yaml").open("a", encoding="utf-8", newline="\n") as file:
        file.write("# later\n")
    git(source, "commit", "--quiet", "--all", "--message", "two")
    cruft(project, "update", "--skip-apply-ask")
    cruft(project, "check")
    assert (project / "gates.yaml").read_text(encoding="utf-8").endswith("# later\n")


def bake_from(source: Path, output: Path, **answers: str) -> str:
    return cookiecutter(str(source), no_input=True, extra_context=answers, output_dir=str(output), default_config=True)


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


def test_at_most_nine_questions_each_with_a_prompt():
    spec = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    questions = [k for k in spec if not k.startswith("_")]
    assert len(questions) <= 9
    assert set(spec["__prompts__"]) == set(questions)
