"""A change is read as data, in what a merge would make of it: what counts, what is named, what hides."""

import json
import subprocess
from pathlib import Path

import pytest

from slm.errors import UserError
from slm.git import merge_of
from slm.verdict.changes import describe, judges_files, touches_model
from tests.test_pipeline import used

DVC = "stages:\n  a:\n    cmd: x\n    deps: [slm/a.py, task/test.jsonl, 'recipes/${item}.json']\n"
GATES = "gates: [{name: score, severity: block, metric: shipped.score, at_least: 0.5}]\n" + (
    "released: {margin: 0.03, best_margin: 0.04, time: 1.1, memory: 1.1, weights: 1.1, slice_size: 30, "
    "slice_alpha: 0.05}\n"
)


class Repository:
    def __init__(self) -> None:
        self.git("init", "--quiet", "--initial-branch=main")
        tests = "".join(json.dumps({"id": str(i), "messages": [i]}) + "\n" for i in range(4))
        self.base = self.commit(
            {
                "dvc.yaml": DVC,
                "gates.yaml": GATES,
                "task/test.jsonl": tests,
                "slm/a.py": "",
                "README.md": "",
                "params.yaml": "a: {b: 1}\n",
            }
        )

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, files: dict[str, str | None]) -> str:
        for name, text in files.items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True) if text is None else path.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        return self.save()

    def save(self) -> str:
        self.git("commit", "--quiet", "--allow-empty", "--message", "x")
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, start: str) -> None:
        self.git("checkout", "--quiet", "-B", name, start)

    def merge(self, *heads: str, words: tuple[str, ...] = ()) -> str:
        self.git("merge", "--quiet", "--no-ff", "--no-edit", *words, *heads)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Repository()


@pytest.fixture
def history(repository: Repository):
    return lambda **files: repository.commit(files), repository.base


@pytest.mark.twin
def test_words_touch_no_model(history):
    commit, base = history
    found = describe(base, commit(**{"README.md": "more", "docs/x.md": "x"}))
    assert (found["model"], found["judge"], found["weakened"]) == ([], [], [])


@pytest.mark.parametrize(
    "name",
    [
        "slm/a.py",
        "params.yaml",
        "recipes/int4.json",
        "dvc.lock",
        "Makefile",
        "numpy.py",
        "task/x.json",
        ".gitattributes",
    ],
)
@pytest.mark.attack
def test_all_but_words_and_judging_touches_the_model(name: str, history):
    commit, base = history
    assert describe(base, commit(**{name: "x: 1"}))["model"] == [name]


@pytest.mark.attack
def test_the_judges_files_loosening_and_lost_tests_are_named(history):
    commit, base = history
    tests = (
        json.dumps({"id": "0", "messages": [0]})
        + "\n"
        + json.dumps({"id": "1", "messages": ["easier"]})
        + "\n"
    )
    files = {
        "gates.yaml": GATES.replace("0.5}", "0.1}"),
        "task/test.jsonl": tests,
        "slm/verdict/gate.py": "x",
        ".github/workflows/a.yml": "x",
    }
    found = describe(base, commit(**files))
    assert [line.split(" ")[0] for line in found["judge"]] == [
        "slm/verdict/gate.py",
        "gates.yaml",
        ".github/workflows/a.yml",
        "task/test.jsonl",
    ]
    assert found["weakened"] == [
        "gate 'score' went from 0.5 to 0.1",
        "task/test.jsonl lost 2 of 4 examples",
        "task/test.jsonl changed 1 of 4 examples",
    ]
    assert (
        describe(base, commit(**{"gates.yaml": "nonsense"}))["weakened"][0]
        == "gates.yaml was removed or cannot be read"
    )


@pytest.mark.attack
def test_a_change_that_waives_a_gate_is_named_and_touches_no_model(history):
    commit, base = history
    waiver = "waivers:\n- {gate: score, owner: ada, reason: later, until: 2030-01-31}\n"
    head = commit(**{"waivers.yaml": waiver})
    found = describe(base, head)
    assert (found["model"], found["judge"]) == ([], ["waivers.yaml (which failed gates are let through)"])
    assert found["weakened"] == ["gate 'score' is waived until 2030-01-31 (ada: later)"]
    assert describe(head, commit(**{"waivers.yaml": waiver.replace("later", "still")}))["weakened"] == []
    prolonged = describe(head, commit(**{"waivers.yaml": waiver.replace("2030", "2031")}))["weakened"]
    assert prolonged == ["gate 'score' is waived until 2031-01-31 (ada: later)"]
    assert describe(head, commit(**{"waivers.yaml": "waivers: all"}))["weakened"] == [
        "waivers.yaml cannot be read"
    ]
    assert describe(head, commit(**{"waivers.yaml": None}))["weakened"] == []


@pytest.mark.parametrize("text", ['{"released": null, "best": null}', "{}", "[]", "nonsense", None])
@pytest.mark.attack
def test_a_released_model_that_is_forgotten_is_named(text: str | None, history):
    commit, _ = history
    base = commit(**{"released.json": '{"released": {"tag": "v1"}, "best": {"tag": "v1"}}'})
    assert (
        describe(base, commit(**{"released.json": '{"released": {"tag": "v2"}, "best": {"tag": "v1"}}'}))[
            "weakened"
        ]
        == []
    )
    found = describe(base, commit(**{"released.json": text}))["weakened"]
    assert found == [
        "released.json no longer names a released model",
        "released.json no longer names a best model",
    ]


def test_parameters_are_compared_by_value(history):
    commit, base = history
    assert describe(base, commit(**{"params.yaml": "a: {b: 2}  # why\nc: x\n"}))["params"] == [
        ("a.b", "1", "2"),
        ("c", "–", '"x"'),
    ]


# What no change can hide behind
HARMLESS = ["README.md", "Änderungen 2.md", "docs/x.md", "docs/a/b-c/x.y.md"]
NO_MODEL = [
    *("docs/images/a.svg", "docs/javascripts/a.js", "docs/stylesheets/a.css", "tests/test_a.py"),
    *("tests/templates/a.jinja", ".github/workflows/a.yml", ".github/actions/setup/action.yml"),
    *(".github/CODEOWNERS", ".github/steps.py", ".github/ruleset.json", "contracts/ladder.schema.json"),
    *("schemas/params.schema.json", "LICENSE", "Dockerfile", "mkdocs.yml", "search.yaml", "gates.yaml"),
    *("waivers.yaml", "released.json", "devices.json"),
]
TOUCHES = [
    # what stands before a library, wherever Python starts
    *("base64.py", "sitecustomize.py", "slm.py", "conftest.py", "zipfile/__init__.py", "x.pth", "a.so"),
    # what DVC reads in any folder, and how it is told
    *("docs/dvc.yaml", "tests/dvc.lock", "tests/models.dvc", "docs/.dvcignore", ".dvc/config", ".dvcignore"),
    # what Git reads in any folder
    *(".gitattributes", "docs/.gitattributes", "tests/.gitignore", ".gitmodules", "slm/.gitattributes"),
    # names that only look harmless
    *("README.md.py", "docs.md/x.py", "docs/x.md/y.py", "README.MD", "Docs/x.md", "DOCS/x.md", "LICENSE.py"),
    *("x/README.md", "slm/README.md", "task/a.md", "gates.yaml/x.py", "contracts/x.py", "schemas/a.py"),
    *("README.md ", "README.md.", "docs/x.md\n", "docs/x\n.md", "do\u0441s/x.md", "docs /x.md", ".x.md"),
    *("tests/x.so", "tests/x.pth", ".github/x.so", "docs/x.py", "docs/..md", "a\u202e.md", "docs/\u200bx.md"),
    *("Gates.yaml", "gates.yaml ", "dockerfile", "tests.py", ".github", "docs", "-rf.md", "docs/-x.md"),
]


def test_what_cannot_change_a_model_is_known_by_its_whole_name():
    for name in (*HARMLESS, *NO_MODEL):
        assert not touches_model({name: True}), name
        assert touches_model({name: False}), f"{name} is a link or a submodule"


@pytest.mark.attack
def test_a_name_that_is_not_known_counts():
    for name in TOUCHES:
        assert touches_model({name: True}) == [name]
        assert judges_files({name: True})[0].startswith(f"{name} ("), name


@pytest.mark.twin
def test_words_and_the_tasks_data_judge_nothing():
    for name in (*HARMLESS, "task/train.jsonl", "task/validation.jsonl", "task/prompts.jsonl"):
        assert judges_files({name: True}) == []
        assert judges_files({name: False}) == [f"{name} (a link or a submodule)"]


def test_all_else_is_listed_the_judges_code_first():
    names = [*NO_MODEL, *TOUCHES, "task/test.jsonl", "slm/verdict/gate.py", "slm/training/trainer.py", "odd"]
    listed = judges_files(dict.fromkeys(names, True))
    assert len(listed) == len(names)
    assert listed[0] == "slm/verdict/gate.py (the judge's code)"
    assert listed.index("gates.yaml (the contract)") < listed.index("base64.py (code that Python can import)")
    odd = listed.index("odd (neither words nor data of the task)")
    assert odd < listed.index("slm/training/trainer.py (code of the pipeline)")


@pytest.mark.parametrize("name", ["slm/a\nb.py", "slm/a b.py ", "slm/ä\u202e.py", "slm/-x", "slm/\ta.py"])
@pytest.mark.attack
def test_an_odd_name_is_one_file(name: str, history):
    commit, base = history
    found = describe(base, commit(**{name: "x"}))
    assert (found["files"], found["model"]) == (1, [name])


@pytest.mark.attack
def test_a_name_that_is_no_text_counts(repository: Repository):
    Path(b"docs/\xff.md".decode(errors="surrogateescape")).parent.mkdir()
    Path(b"docs/\xff.md".decode(errors="surrogateescape")).write_text("x", encoding="utf-8")
    assert describe(repository.base, repository.commit({}))["model"] == ["docs/\ufffd.md"]


@pytest.mark.attack
def test_a_link_a_submodule_and_a_mode_count(repository: Repository):
    base = repository.commit({"docs/a.md": "x", "docs/b.md": "x", "docs/c.md": "x"})
    git = repository.git
    Path("docs/a.md").unlink()
    Path("docs/a.md").symlink_to("../slm/a.py")
    git("add", "--all")
    git("update-index", "--cacheinfo", f"160000,{base},docs/b.md")
    git("update-index", "--chmod=+x", "docs/c.md")
    found = describe(base, repository.save())
    assert found["files"] == 3
    assert found["model"] == ["docs/a.md", "docs/b.md"]
    assert found["judge"] == ["docs/a.md (a link or a submodule)", "docs/b.md (a link or a submodule)"]


@pytest.mark.parametrize(
    "attributes",
    [
        "-diff",
        "binary",
        "export-ignore",
        "export-subst",
        "filter=x",
        "working-tree-encoding=UTF-16",
        "eol=crlf",
    ],
)
@pytest.mark.attack
def test_no_attribute_hides_a_file(attributes: str, repository: Repository):
    Path(".gitattributes").write_text(f"slm/* {attributes}\n", encoding="utf-8")
    repository.git("add", ".gitattributes")
    base = repository.save()
    repository.git("config", "filter.x.clean", "true")
    repository.git("config", "diff.ignoreSubmodules", "all")
    Path(".gitmodules").write_text('[submodule "m"]\npath = m\nurl = ./m\nignore = all\n', encoding="utf-8")
    repository.git("add", ".gitmodules")
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], input="evil", check=True, capture_output=True, text=True
    ).stdout.strip()
    repository.git("update-index", "--add", "--cacheinfo", f"100644,{blob},slm/a.py")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{base},m")
    found = describe(base, repository.save())
    assert found["model"] == [".gitmodules", "m", "slm/a.py"]


# What a merge would make
EVIL = {"slm/a.py": "evil\n"}
WORDS = {"README.md": "words\n"}


def criss_cross(repository: Repository) -> tuple[str, str]:
    """Two merge bases: main has merged the branch without its code, the branch has merged main."""
    repository.branch("change", repository.base)
    evil = repository.commit(EVIL)
    repository.branch("main", repository.base)
    words = repository.commit(WORDS)
    main = repository.merge(evil, words=("--strategy=ours",))
    repository.branch("change", evil)
    repository.merge(words)
    return main, repository.commit(EVIL | {"slm/b.py": "more\n", "docs/x.md": "x"})


def octopus(repository: Repository) -> tuple[str, str]:
    heads = []
    for name, files in (("one", EVIL), ("two", WORDS), ("three", {"recipes/int4.json": "{}"})):
        repository.branch(name, repository.base)
        heads.append(repository.commit(files))
    repository.branch("change", repository.base)
    return repository.base, repository.merge(*heads)


def behind(repository: Repository) -> tuple[str, str]:
    """main has moved on in other files, which the change does not have."""
    repository.branch("change", repository.base)
    head = repository.commit(WORDS)
    repository.branch("main", repository.base)
    return repository.commit({"params.yaml": "a: {b: 2}\n", "slm/c.py": "x"}), head


def taken_back(repository: Repository) -> tuple[str, str]:
    """The change has merged main without what main has since; its own commits do not show that."""
    repository.branch("change", repository.base)
    head = repository.commit(WORDS)
    repository.branch("main", repository.base)
    main = repository.commit({"gates.yaml": GATES.replace("0.5}", "0.9}"), "slm/c.py": "x"})
    repository.branch("change", head)
    return main, repository.merge(main, words=("--strategy=ours",))


def ready(repository: Repository) -> tuple[str, str]:
    """The head is the merge commit that GitHub makes."""
    repository.branch("change", repository.base)
    head = repository.commit(EVIL)
    repository.branch("main", repository.base)
    main = repository.commit(WORDS)
    return main, repository.merge(head)


@pytest.mark.parametrize("make", [criss_cross, octopus, behind, taken_back, ready])
@pytest.mark.attack
def test_a_change_is_what_its_merge_makes(make, repository: Repository):
    """Held against a merge that git makes in a checkout."""
    main, head = make(repository)
    found = describe(main, head)
    repository.branch("truth", main)
    repository.merge(head)
    truth = repository.git("diff", "--name-only", "--no-renames", main, "HEAD").splitlines()
    assert found["files"] == len(truth) and not found["conflicts"]
    assert sorted(touches_model(dict.fromkeys(truth, True))) == sorted(found["model"])
    assert merge_of(main, head).tree == repository.git("rev-parse", "HEAD^{tree}")


@pytest.mark.attack
def test_what_two_merge_bases_hid_is_seen(repository: Repository):
    main, head = criss_cross(repository)
    assert len(repository.git("merge-base", "--all", main, head).splitlines()) == 2
    assert "slm/b.py" in describe(main, head)["model"]


@pytest.mark.attack
def test_what_a_merge_takes_back_is_named(repository: Repository):
    found = describe(*taken_back(repository))
    assert found["model"] == ["slm/c.py"]
    assert found["weakened"] == ["gate 'score' went from 0.9 to 0.5"]


@pytest.mark.twin
def test_what_main_has_since_is_not_laid_at_a_changes_door(repository: Repository):
    found = describe(*behind(repository))
    assert (found["files"], found["model"], found["weakened"], found["params"]) == (1, [], [], [])


@pytest.mark.attack
def test_two_that_git_cannot_merge_count_in_full(repository: Repository):
    repository.branch("change", repository.base)
    head = repository.commit({"README.md": "mine\n"})
    repository.branch("main", repository.base)
    main = repository.commit({"README.md": "theirs\n", "docs/x.md": "x"})
    found = describe(main, head)
    assert found["conflicts"] == ["README.md"]
    assert found["model"] == ["README.md", "docs/x.md"]


@pytest.mark.attack
def test_a_history_of_its_own_counts(repository: Repository):
    repository.git("checkout", "--quiet", "--orphan", "change")
    found = describe(repository.base, repository.commit({"numpy.py": "x", "params.yaml": "other"}))
    assert found["conflicts"] == ["params.yaml"] and "numpy.py" in found["model"]


def test_a_commit_that_is_not_here_is_an_error(repository: Repository):
    with pytest.raises(UserError, match=r"git 2\.38 or newer and both commits are needed"):
        describe(repository.base, "0" * 40)


def test_the_judges_code_is_known_by_name():
    """All that the judge, its workers and the workflows' steps import of slm/ is named as the judge's."""
    root = Path(__file__).parents[1]
    starts = [*(root / "slm/verdict").rglob("*.py"), *(root / "slm/ci").glob("*.py")]
    starts.append(root / "slm/inference/asker.py")
    files = {start.relative_to(root).as_posix() for start in starts}
    files |= {file for start in starts for file in used(start)}
    # The command that starts them imports nothing else before it runs.
    files |= {"slm/__main__.py", "slm/cli/app.py", "slm/cli/verdict.py"}
    known = {line.removesuffix(" (the judge's code)") for line in judges_files(dict.fromkeys(files, True))}
    assert len(files) > 40 and "slm/training/trainer.py" not in known
    assert not files - known, f"slm/verdict/changes.py: JUDGE lacks {sorted(files - known)}"
