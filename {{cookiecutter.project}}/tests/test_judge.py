"""The judge's small parts: a stranger's package is looked at, a change is read as data, a comment shows text
as text.
"""

import html
import re
from pathlib import Path

import pytest

from slm.ci.plan import judgeable
from slm.dvc_cli import lacking, out_of_lock
from slm.verdict.comment import inert
from slm.verdict.contract import Contract, Gate, Released
from slm.verdict.cost import judge_cost

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
