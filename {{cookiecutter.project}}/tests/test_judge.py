"""The judge's small parts: a stranger's package is looked at, a change is read as data, a comment shows text
as text.
"""

import html
import json
import re
import zipfile
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from slm.ci.plan import judgeable
from slm.ci.seal import seal_key
from slm.dvc_cli import lacking, out_of_lock
from slm.errors import UserError
from slm.verdict.comment import inert
from slm.verdict.contract import Contract, Gate, Released
from slm.verdict.cost import judge_cost
from slm.verdict.untrusted import inspect, unpack_candidate

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
