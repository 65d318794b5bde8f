"""The judge's small parts: a stranger's package is looked at, a change is read as data, a comment shows text
as text.
"""

import html
import json
import re
import subprocess
import zipfile
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from slm.ci.plan import judgeable
from slm.ci.seal import seal_key
from slm.dvc_cli import lacking, out_of_lock
from slm.errors import UserError
from slm.verdict.changes import describe, judges_files
from slm.verdict.comment import inert
from slm.verdict.contract import Contract, Gate, Released
from slm.verdict.cost import judge_cost
from slm.verdict.untrusted import inspect, unpack_candidate
from tests.test_pipeline import used

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "@everyone look",
    "```\nend of code\n```",
    "]]>",
    "| a | b |",
    "[click](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "https://example.org",
    "#1 closes #2",
    "</code></td><b>bold</b>",
    "`tick` and **bold** and _em_",
    "<!-- model-verdict -->",
    "$x^2$ and :smile:",
    "\u202egnp.exe",
    "line\nbreak\r\nand\ttab",
    "&lt;b&gt; &amp; &#60;",
    "a" * 5000,
    "\x00\x1b[31mred",
    "~~gone~~ --- ===",
    "score_low __init__ _x_",
    "see www.example.org/login now",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_shown_as_text(text: str):
    shown = inert(text)
    inner = shown.removeprefix("<code>").removesuffix("</code>")
    assert shown == f"<code>{inner}</code>"
    plain = re.sub(r"&#\d+;", "", inner)
    assert not set(plain) & set(".&#<>`*_[]()|@:!~^$\\/\"'\n\r\t\x00\x1b\u202e")
    said = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split(" ")[:3])
    assert html.unescape(inner).startswith(re.sub(r"\s+", " ", said)[:200])
    assert len(inner) < 1500


def onnx_model(location: str | None = None, domain: str = "") -> onnx.ModelProto:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    if location is not None:
        weights.ClearField("float_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
    node = helper.make_node("Identity", ["w"], ["y"], domain=domain)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([node], "g", [], [output], [weights]))


def branching(location: str) -> onnx.ModelProto:
    """A model whose weights stand inside the branch of an If."""
    inner = onnx_model(location).graph
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([node], "g", [flag], [output]))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    onnx.save(onnx_model("model.onnx.data"), folder / "model.onnx")
    (folder / "model.onnx.data").write_bytes(b"\0\0\0\0")
    config = {"model": {"decoder": {"filename": "model.onnx", "session_options": {"provider_options": []}}}}
    (folder / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def config(package: Path, **changes: object) -> None:
    (package / "genai_config.json").write_text(json.dumps({"model": {"decoder": changes}}), encoding="utf-8")


FAULTS = {
    "a library beside it": (lambda p: (p / "x.so").write_bytes(b""), "is not a model file"),
    "a folder": (lambda p: (p / "sub").mkdir(), "is not a model file"),
    "a link": (lambda p: (p / "vocab.json").symlink_to("/etc/passwd"), "is not a model file"),
    "no model": (lambda p: (p / "model.onnx").unlink(), "model.onnx is missing"),
    "custom operators": (lambda p: config(p, custom_ops_library="x.so"), "is not allowed"),
    "another provider": (
        lambda p: config(p, session_options={"provider_options": [{"cuda": {}}]}),
        "is not allowed",
    ),
    "a key that stands twice": (
        lambda p: (p / "genai_config.json").write_text('{"model": {"a": 1}, "model": {}}', encoding="utf-8"),
        "appears twice",
    ),
    "profiling into a file": (
        lambda p: config(p, session_options={"enable_profiling": "x"}),
        "is not allowed",
    ),
    "weights elsewhere, inside a branch": (
        lambda p: onnx.save(branching("/etc/passwd"), p / "model.onnx"),
        "not in the package",
    ),
    "a file elsewhere": (lambda p: config(p, filename="../../etc/passwd"), "is not in the package"),
    "configuration that is no JSON": (
        lambda p: (p / "genai_config.json").write_text("{", encoding="utf-8"),
        "is not JSON",
    ),
    "no ONNX": (lambda p: (p / "model.onnx").write_bytes(b"\xff\xff\xff"), "is not an ONNX model"),
    "weights elsewhere": (
        lambda p: onnx.save(onnx_model("../../../etc/passwd"), p / "model.onnx"),
        "not in the package",
    ),
    "foreign operators": (
        lambda p: onnx.save(onnx_model(None, "evil"), p / "model.onnx"),
        "operators of 'evil'",
    ),
}


def test_a_plain_package_is_let_in(package: Path):
    inspect(package)


@pytest.mark.parametrize("name", FAULTS)
def test_a_package_with_more_than_a_model_is_refused(name: str, package: Path):
    plant, said = FAULTS[name]
    plant(package)
    with pytest.raises(UserError, match=said):
        inspect(package)


@pytest.mark.parametrize(
    "name",
    ["../out", "/out", "a/model.onnx", "model.onnx/../../out", "C:\\out", "evil.py", "genai_config.json\n"],
)
def test_unpacking_stays_inside_and_leaves_nothing(name: str, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("genai_config.json", "{}")
        zipped.writestr(name, "x")
    with pytest.raises(UserError, match="is not a model file"):
        unpack_candidate(tmp_path / "a.zip", tmp_path / "to", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_what_comes_out_counts_not_what_is_claimed(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("model.onnx", bytes(3_000_000))
    with pytest.raises(UserError, match="larger than 2 MB"):
        unpack_candidate(tmp_path / "a.zip", tmp_path / "to", 2)
    unpack_candidate(tmp_path / "a.zip", tmp_path / "to", 4)
    assert (tmp_path / "to" / "model.onnx").stat().st_size == 3_000_000


# A change, between two commits
DVC = "stages:\n  a:\n    cmd: x\n    deps: [slm/a.py, task/test.jsonl, 'recipes/${item}.json']\n"
GATES = "gates: [{name: score, severity: block, metric: shipped.score, at_least: 0.5}]\n" + (
    "released: {margin: 0.03, best_margin: 0.04, time: 1.1, memory: 1.1, weights: 1.1, slice_size: 30, "
    "slice_alpha: 0.05}\n"
)


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words: str) -> str:
        command = [
            "git",
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@localhost",
            "-c",
            "commit.gpgsign=false",
            *words,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(**files: str | None) -> str:
        for name, text in files.items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True) if text is None else path.write_text(text, encoding="utf-8")
        git("add", "--all")
        git("commit", "--quiet", "--message", "x")
        return git("rev-parse", "HEAD")

    git("init", "--quiet")
    tests = "".join(json.dumps({"id": str(i), "messages": [i]}) + "\n" for i in range(4))
    files = {
        "dvc.yaml": DVC,
        "gates.yaml": GATES,
        "task/test.jsonl": tests,
        "slm/a.py": "",
        "README.md": "",
        "params.yaml": "a: {b: 1}\n",
    }
    return commit, commit(**files)


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
def test_all_but_words_and_judging_touches_the_model(name: str, history):
    commit, base = history
    assert describe(base, commit(**{name: "x: 1"}))["model"] == [name]


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
        ".github/workflows/a.yml",
        "gates.yaml",
        "slm/verdict/gate.py",
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


def test_a_file_name_with_a_line_break_is_one_file(history):
    commit, base = history
    assert describe(base, commit(**{"slm/a\nb.py": "x"}))["files"] == 1


# The plan
STATUS = {
    "check": [{"changed deps": {"task/train.jsonl": "modified"}}],
    "teach": [
        {"changed outs": {"models/teacher": "not in cache"}},
        {"changed deps": {"models/base": "deleted", "params.yaml": {"teach.epochs": "modified"}}},
    ],
    "package": [{"changed outs": {"dist": "deleted"}}],
    "measure": ["changed command"],
}


def test_what_is_only_absent_is_no_change():
    assert out_of_lock(STATUS) == {
        "check": ["task/train.jsonl (modified)"],
        "teach": ["params.yaml (teach.epochs)"],
        "measure": ["changed command"],
    }
    assert lacking(STATUS) == {"teach", "package"}
    assert (
        judgeable({"teach", "convert@onnx"})
        and not judgeable({"evaluate@int4"})
        and not judgeable({"package"})
    )


def test_a_lock_names_its_package():
    assert (
        seal_key(
            "    outs:\n    - path: dist\n      hash: md5\n      md5: 0123456789abcdef0123456789abcdef.dir\n"
        )
        == "0123456789abcdef"
    )
    with pytest.raises(UserError, match="names no package"):
        seal_key("stages: {}\n")


def test_cost_is_judged_as_share_of_the_released_model():
    released = Released(
        margin=0.03, best_margin=0.04, time=1.2, memory=1.2, weights=1.02, slice_size=30, slice_alpha=0.05
    )
    contract = Contract(
        gates=[Gate(name="g", severity="block", metric="shipped.score", at_least=0.0)], released=released
    )
    old = {"request_ms_p50": 100.0, "rss_mb": 100.0, "weights_mb": 50.0}
    rows = judge_cost(contract, {"request_ms_p50": 125.0, "rss_mb": 110.0, "weights_mb": 50.0}, old)
    assert [r.passed for r in rows] == [False, True, True]
    assert [r.passed for r in judge_cost(contract, old, None)] == [None] * 3
    assert judge_cost(contract, old, old | {"rss_mb": 0.0})[1].passed is False


def test_the_judges_code_is_known_by_name():
    """All that the judge, its workers and the workflows' steps import of slm/, and what that imports, is in
    the list.
    """
    root = Path(__file__).parents[1]
    starts = [*(root / "slm/verdict").rglob("*.py"), *(root / "slm/ci").glob("*.py")]
    starts.append(root / "slm/evaluation/cost_worker.py")
    files = {start.relative_to(root).as_posix() for start in starts}
    files |= {file for start in starts for file in used(start)}
    # The command that starts them imports nothing else before it runs.
    files |= {"slm/__main__.py", "slm/cli/app.py", "slm/cli/verdict.py"}
    assert len(files) > 40 and not judges_files(["slm/training/trainer.py", "pipeline/teach.py"])
    unknown = sorted(file for file in files if not judges_files([file]))
    assert not unknown, f"slm/verdict/changes.py: JUDGE lacks {unknown}"
