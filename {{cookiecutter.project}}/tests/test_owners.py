"""Every file has an owner by .github/CODEOWNERS, but for words: so no new file passes without a review."""

import re
import subprocess
from pathlib import Path

import pytest
from pathspec import GitIgnoreSpec

from slm.verdict.changes import WORDS
from tests.test_changes import HARMLESS, NO_MODEL, TOUCHES

ROOT = Path(__file__).parents[1]
OWNERS = ROOT / ".github" / "CODEOWNERS"


def owned(path: str, text: str) -> bool:
    """GitHub's rule: the last pattern that matches counts, and one without an owner takes the owner away.

    Patterns are those of .gitignore, but for `!` and `[ ]`, which GitHub does not read.
    """
    found = False
    for line in text.splitlines():
        pattern, *owners = line.split("#")[0].split() or [""]
        assert not set("![]\\") & set(pattern), f"GitHub does not read {pattern!r}"
        if pattern and GitIgnoreSpec.from_lines([pattern]).match_file(path):
            found = bool(owners)
    return found


def files() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [name for name in done.stdout.split("\0") if name]


def test_only_words_have_no_owner():
    text = OWNERS.read_text(encoding="utf-8")
    names = files()
    if not names:
        pytest.skip("this is no clone of the project")
    lacking = {name for name in names if not owned(name, text)}
    assert "README.md" in lacking and "docs/workflows.md" in lacking
    assert not {name for name in lacking if not re.fullmatch(WORDS, name)}


def test_a_new_file_has_an_owner():
    text = OWNERS.read_text(encoding="utf-8")
    new = [
        *(
            "base64.py",
            "sitecustomize.py",
            "tests/conftest.py",
            ".dvc/config",
            ".dvc/config.local",
            "slm/x.py",
        ),
        *(".github/workflows/x.yml", ".github/x.md", "docs/javascripts/x.js", "docs/x.html", "task/new/x.md"),
        *("evil.md/x.py", "docs/a.md/sitecustomize.py", "docs/a/b.md/c.css", ".git-x/hooks/x.md"),
    ]
    # Of the names that only look like words, a page at the root or in docs/ may lack one.
    page = re.compile(r"(docs/.*|[^/]*)\.md", re.DOTALL)
    for name in (*new, *NO_MODEL, *(name for name in TOUCHES if not page.fullmatch(name.strip()))):
        assert owned(name, text) or name in HARMLESS, name


@pytest.mark.parametrize(
    "text",
    [
        "/slm/ @o\n/.github/ @o\n",  # what is dangerous is listed, so a new file at the root is not
        "* @o\n*.md\n/tests/\n",
        "* @o\n/docs/\n",
        "/*.md\n* @o\n*.json\n",
    ],
)
def test_a_list_with_a_hole_is_seen(text: str):
    holes = ("base64.py", "tests/conftest.py", "docs/javascripts/x.js", "recipes/int4.json")
    assert not all(owned(name, text) for name in holes)
