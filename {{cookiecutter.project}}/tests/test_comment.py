"""The comment on a pull request: what strangers say is text in it, what matters stands first, nothing is cut
in silence, and it is made from a file that is read by its form.
"""

import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slm.errors import UserError
from slm.files import write_json, write_text
from slm.verdict.changes import judges_files
from slm.verdict.comment import LONGEST_COMMENT, comment, inert, status_text
from slm.verdict.judged import Changes, Figures, Flip, Judged, Shown, read_judged
from slm.verdict.rows import Row, Verdict

ROOT = Path(__file__).parents[1]
HEAD = "a" * 40
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
    "HTTP://EXAMPLE.ORG/a",
    "ftp://example.org",
    "#1 closes #2",
    "GH-1 and acme/slm#3",
    "acme/slm@0123456789abcdef0123456789abcdef01234567",
    "</code></td><b>bold</b>",
    "`tick` and **bold** and _em_",
    "<!-- model-verdict -->",
    "--> <b>x</b> <!--",
    "$x^2$ and $`y`$ and :smile:",
    "\u202egnp.exe",
    "line\nbreak\r\nand\ttab",
    "&lt;b&gt; &amp; &#60;",
    "&#64;everyone",
    "a" * 5000,
    "@" * 5000,
    "\x00\x1b[31mred",
    "~~gone~~ --- ===",
    "score_low __init__ _x_",
    "see www.example.org/login now",
    "WWW.EXAMPLE.ORG wWw.example.org",
    "a@evil.com",
    "a.b+c-d_e@evil.com/x",
    "mailto:a@evil.com",
    "xmpp:a@evil.com/chat",
    "smb:a@b.com tel:123 ssh://git@example.org",
    "(https://example.org)",
    "https://user@www.example.org:80/@x",
    "@acme/owners",
    "\\| \\` \\<b>",
    "[^1]: note [ref]: https://example.org",
    "- [ ] item\n1. one\n# title\n> quote",
    "<https://example.org> <a@evil.com>",
    "％５Ｂ ＠ｅvil ｗｗｗ.example.org",
    "::error::x ##[error]y",
]
# What GitHub makes a link of before it knows that the text is code (section 6.9 of its Markdown).
LINKED = re.compile(r"(?i)https?://\w|ftp://\w|www\.\w|[\w.+-]+@[\w-]+\.\w|(mailto|xmpp):\S+@")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.attack
def test_any_text_is_shown_as_text(text: str):
    shown = inert(text)
    inner = shown.removeprefix("<code>").removesuffix("</code>")
    assert shown == f"<code>{inner}</code>"
    pieces = inner.split("<!-- -->")
    assert not set(re.sub(r"&#\d+;", "", "".join(pieces))) & set(
        ".&#<>`*_[]()|@:!~^$\\/\"'\n\r\t\x00\x1b\u202e"
    )
    assert not any(LINKED.search(html.unescape(piece)) for piece in pieces)
    said = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())[:150]
    assert " ".join(html.unescape("".join(pieces)).split()).startswith(said)
    assert len(inner) < 3200


FIGURES = Figures(850, 0.9, 0.88, 0.92, 0.99, 15.2, 60.5, 39.5)
SHOWN = Shown(
    "a processor", FIGURES, FIGURES, ["t-1"], ["t-2", "t-3"], 60, [Flip("ask", "1", "1", "2", -1.0)]
)
ROWS = [
    Row("score", "block", True, 0.9, 0.8, "good"),
    Row("weights", "block", False, "0a1b", None, "bad: a@evil.com"),
    Row("time of released", "warn", None, None, None, "nothing is released yet"),
]
VERDICT = Verdict(ROWS, {"revision": HEAD, "weights_sha256": "0a"}, {"tag": "v1"}, [], "0b", "container")
JUDGED = Judged(VERDICT, Changes(True, ["gates.yaml (the contract)"], [["a.b", "1", "2"]]), SHOWN)


def test_a_comment_says_what_it_rests_on():
    text = comment(JUDGED)
    assert text.startswith("## ❌ The model is refused: weights.\n")
    assert status_text(JUDGED) == "❌ The model is refused: weights."
    assert "sandbox <code>container</code>" in text
    assert text.index("<code>weights</code>") < text.index("<code>score</code>")  # what refuses stands first
    assert "- 2 answers lost: <code>t-2</code>, <code>t-3</code>" in text and "- 1 answers won" in text
    assert "Validation data: 1 of 60 answers lost" in text
    assert "What is left out here" not in text
    plain = comment(Judged(Verdict([], {"revision": HEAD}), Changes(False, [], [])))
    assert plain == "## ✅ This change does not touch the model.\n"


@pytest.mark.attack
def test_dangerous_files_stand_first_and_a_cut_is_said():
    """Hundreds of harmless names hide nothing."""
    harmless = [f"aaa/{i:04}-{'x' * 150}.txt" for i in range(400)]
    danger = [
        *("gates.yaml", "slm/verdict/judge.py", ".github/workflows/a.yml", "slm/github.py", "slm/files.py"),
        *("slm/task/metrics.py", "bootstrap.py", "requirements/locked.txt", "pyproject.toml", "base64.py"),
        *("exam/answers.enc", "task/data.dvc"),
    ]
    listed = judges_files(dict.fromkeys([*harmless, *danger], True))
    weakened = [f"gate {i} went from 0.5 to 0.1 {'y' * 300}" for i in range(400)]
    judged = replace(JUDGED, changes=Changes(True, listed, [["p", "1", "2"]] * 3000))
    judged = replace(judged, verdict=replace(VERDICT, weakened=weakened))
    text = comment(judged)
    assert len(text) < LONGEST_COMMENT
    assert max(text.index(inert(name).removesuffix("</code>")) for name in danger) < text.index("aaa&#47;")
    for title in ("Parameters", "contract is loosened", "judged by"):
        part = text[text.index(title) :]
        assert re.search(r"\nand \d+ more|- and \d+ more", part), title


@pytest.mark.attack
def test_what_has_no_room_is_said_to_be_left_out():
    wide = "&" * 3000
    gates = [Row(f"gate {i}", "block", i > 8, 1, 0, wide) for i in range(40)]
    flips = [Flip("<" * 200, "<" * 200, "<" * 200, "<" * 200, -1.0)] * 60
    judged = Judged(
        replace(VERDICT, gates=gates, weakened=[wide] * 99),
        Changes(True, [f"slm/{'é<' * 90}{i} (code)" for i in range(99)], [["<" * 200] * 3] * 99),
        replace(SHOWN, flips=flips, won=["<" * 60] * 999),
    )
    text = comment(judged)
    assert len(text) < LONGEST_COMMENT and "What is left out here stands in `verdict.json`" in text
    assert "gate 8" in text and re.search(r"and \d+ more", text)


@pytest.mark.attack
def test_a_gate_s_name_is_no_markup():
    row = Row("<b>@all</b> [x](y) #1", "block", False, 1, 2, "")
    title = comment(Judged(replace(VERDICT, gates=[row]))).splitlines()[0]
    assert not set(title[3:]) & set("<>@[]#&*_`/")


def stored(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(JUDGED.to_json())) | changes


@pytest.mark.twin
def test_what_a_judge_writes_is_read_back(tmp_path: Path):
    for judged in (JUDGED, Judged(VERDICT), replace(JUDGED, shown=replace(SHOWN, released=None))):
        write_json(tmp_path / "verdict.json", judged.to_json())
        assert read_judged(tmp_path / "verdict.json", HEAD) == judged


FORGED = {
    "another commit": stored(candidate={"revision": "b" * 40}),
    "no commit": stored(candidate={}),
    "a verdict that its gates do not give": stored(passed=True),
    "no truth for a verdict": stored(passed=0),
    "an unknown key": stored(number=7),
    "an unknown key below": stored(changes=stored()["changes"] | {"pull": 7}),
    "no gates": {k: v for k, v in stored().items() if k != "gates"},
    "a gate without a reason": stored(gates=[{"name": "a", "severity": "block", "passed": False}]),
    "an unknown severity": stored(gates=[stored()["gates"][1] | {"severity": "none"}]),
    "a number for a name": stored(gates=[stored()["gates"][1] | {"name": 1}]),
    "a list for a value": stored(gates=[stored()["gates"][1] | {"value": [1]}]),
    "a truth for a figure": stored(shown=stored()["shown"] | {"sample": True}),
    "a text without end": stored(weakened=["a" * 30_000]),
    "a list without end": stored(weakened=["a"] * 30_000),
    "a list for the whole": [1],
    "a number for the whole": 1,
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.attack
def test_what_no_judge_writes_is_refused(name: str, tmp_path: Path):
    write_json(tmp_path / "verdict.json", FORGED[name])
    with pytest.raises(UserError, match=r"verdict\.json: "):
        read_judged(tmp_path / "verdict.json", HEAD)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[" * 100_000, '{"passed": false, "passed": true}', " " * 5_000_000),
        json.dumps(stored()).replace("0.9", "NaN"),
        json.dumps(stored()).replace("0.9", "1e999"),
    ],
)
@pytest.mark.attack
def test_what_is_no_json_of_others_is_refused(text: str, tmp_path: Path):
    write_text(tmp_path / "verdict.json", text)
    with pytest.raises(UserError, match=r"verdict\.json: "):
        read_judged(tmp_path / "verdict.json", HEAD)
    with pytest.raises(UserError, match="no plain file"):
        read_judged(tmp_path / "none.json", HEAD)


def test_the_job_that_reports_needs_the_standard_library_alone():
    code = f"import sys; sys.path.append({str(ROOT)!r}); import slm.ci.steps; "
    code += "print([m for m in sys.modules if m.split('.')[0] in ('pydantic', 'numpy', 'regex', 'ruamel')])"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
