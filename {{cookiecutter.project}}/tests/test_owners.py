"""Every file but words has an owner by .github/CODEOWNERS, and the rulesets ask for the review."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pathspec import GitIgnoreSpec
from ruamel.yaml import YAML

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


@pytest.mark.twin
def test_only_words_have_no_owner():
    text = OWNERS.read_text(encoding="utf-8")
    names = files()
    if not names:
        pytest.skip("this is no clone of the project")
    lacking = {name for name in names if not owned(name, text)}
    assert "README.md" in lacking and "docs/workflows.md" in lacking
    assert not {name for name in lacking if not re.fullmatch(WORDS, name)}


@pytest.mark.attack
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
@pytest.mark.attack
def test_a_list_with_a_hole_is_seen(text: str):
    holes = ("base64.py", "tests/conftest.py", "docs/javascripts/x.js", "recipes/int4.json")
    assert not all(owned(name, text) for name in holes)


# The rulesets, in the form of GitHub's REST API
ACTIONS = 15368  # GitHub's own number of the app that runs workflows
RULES = {"deletion", "non_fast_forward", "creation", "update", "pull_request", "required_status_checks"}


def ruleset(name: str) -> dict[str, Any]:
    return json.loads((ROOT / ".github" / f"{name}.json").read_text(encoding="utf-8"))


def parameters(rules: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(rule["parameters"] for rule in rules["rules"] if rule["type"] == kind)


@pytest.mark.parametrize("name", ["ruleset", "ruleset-solo", "ruleset-tags", "ruleset-fixed-tags"])
def test_a_ruleset_has_the_form_that_github_takes(name: str):
    rules = ruleset(name)
    assert set(rules) == {"name", "target", "enforcement", "conditions", "bypass_actors", "rules"}
    assert rules["target"] == ("tag" if "tags" in name else "branch") and rules["enforcement"] == "active"
    assert {rule["type"] for rule in rules["rules"]} <= RULES
    modes = {actor["bypass_mode"] for actor in rules["bypass_actors"]}
    assert modes <= ({"always"} if rules["target"] == "tag" else {"pull_request"}), (
        "tags have no pull requests"
    )
    patterns = rules["conditions"]["ref_name"]["include"]
    assert all(p == "~DEFAULT_BRANCH" or p.startswith("refs/tags/") for p in patterns)


def test_a_merge_needs_the_verdict_by_the_workflows_alone():
    from slm.ci.steps import STATUS_CONTEXT

    checks = parameters(ruleset("ruleset"), "required_status_checks")["required_status_checks"]
    assert checks == [{"context": c, "integration_id": ACTIONS} for c in ("pass", STATUS_CONTEXT)]
    workflow = YAML(typ="safe").load((ROOT / ".github/workflows/pr.yml").read_text(encoding="utf-8"))
    assert "pass" in {job["name"] for job in workflow["jobs"].values()}


def test_who_works_alone_gives_up_the_second_person_and_no_more():
    team, solo = ruleset("ruleset"), ruleset("ruleset-solo")
    asked = parameters(team, "pull_request")
    assert asked["require_last_push_approval"] and asked["require_code_owner_review"]
    asked |= {
        "required_approving_review_count": 0,
        "require_code_owner_review": False,
        "require_last_push_approval": False,
    }
    assert team | {"name": ""} == solo | {"name": ""}


def test_a_release_tag_is_made_by_maintainers_and_moved_by_nobody():
    made, fixed = ruleset("ruleset-tags"), ruleset("ruleset-fixed-tags")
    assert {rule["type"] for rule in made["rules"]} == {"creation"} and made["bypass_actors"]
    assert {rule["type"] for rule in fixed["rules"]} >= {"update", "deletion"} and not fixed["bypass_actors"]
    assert set(made["conditions"]["ref_name"]["include"]) <= set(fixed["conditions"]["ref_name"]["include"])
