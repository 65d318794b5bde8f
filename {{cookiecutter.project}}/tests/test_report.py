"""The page from a tiny checkout: it holds the facts, shows data as text, and loads nothing."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from slm.config.params import load_params
from slm.errors import UserError
from slm.evaluation.ladder import RUNGS
from slm.files import folder_sha256, sha256_file, weights_sha256, write_json, write_jsonl, write_text
from slm.report import page as report
from slm.task.definition import load_task
from slm.task.metrics import summarise
from slm.verdict.rows import Row, Verdict

ROOT = Path(__file__).parents[1]
EVIL = '<script>alert("1")</script><img src="https://example.org/x.png">'
EXPECTED = ["on", "off", "off"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The facts that a page cannot do without: task, parameters, contract, package, predictions, quality,
    cost, ladder.
    """
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    gate = "{name: score, severity: block, metric: shipped.score_low, at_least: 0.5}"
    margins = (
        "{margin: 0.03, best_margin: 0.04, time: 1.1, memory: 1.1, weights: 1.1, slice_size: 30, "
        "slice_alpha: 0.05}"
    )
    write_text(Path("gates.yaml"), f"gates: [{gate}]\nreleased: {margins}\n")
    write_json(Path("released.json"), {"released": None, "best": None})
    write_text(
        Path("task/task.yaml"), "name: lamp\nkind: label\ninstruction: On or off?\nlabels: ['on', 'off']\n"
    )
    chats = [
        [{"role": "user", "content": f"request {i} {EVIL}"}, {"role": "assistant", "content": e}]
        for i, e in enumerate(EXPECTED)
    ]
    write_jsonl(
        Path("task/test.jsonl"),
        [{"id": str(i), "messages": m, "tags": ["odd <b>tag</b>"]} for i, m in enumerate(chats)],
    )
    task, package = load_task(), load_params().package
    model = Path("dist") / package.name / "model"
    write_text(model / "model.onnx", "weights")
    hashes = {
        "weights_sha256": weights_sha256(model),
        "folder_sha256": folder_sha256(model),
        "test_sha256": sha256_file(Path("task/test.jsonl")),
    }

    for rung, answers in {"teacher": EXPECTED, package.variant: ["on", EVIL, "on"]}.items():
        rows = [
            {
                "id": str(i),
                "prompt": f"request {i} {EVIL}",
                "expected": expected,
                "answer": answer,
                "cut": False,
                "tags": ["odd <b>tag</b>"],
            }
            for i, (expected, answer) in enumerate(zip(EXPECTED, answers, strict=True))
        ]
        write_jsonl(Path("predictions") / f"{rung}.jsonl", [{"rung": rung, **hashes}, *rows])
        write_json(
            Path("reports/quality") / f"{rung}.json",
            {"rung": rung, **hashes, "cut": 0, **summarise(task, rows)},
        )

    quality = {
        "n": 3,
        "score": 1 / 3,
        "score_low": 0.1,
        "score_high": 0.8,
        "valid_rate": 2 / 3,
        "field_f1": None,
        **hashes,
    }
    keys = ("ttft_ms_p50", "request_ms_p50", "request_ms_p95", "decode_tokens_per_s", "rss_mb")
    cost = dict.fromkeys((*keys, "weights_mb"), 1234.0)
    nothing = dict.fromkeys(cost)  # a rung that the runtime does not run, or an endpoint as the teacher
    rungs = [
        {"name": name, "parameters_m": None, **quality, **(cost if name == package.variant else nothing)}
        for name in RUNGS
    ]
    ladder = {
        "task": "lamp",
        "profile": "quick",
        "threads": 1,
        "machine": {"processor": "abacus"},
        "rungs": rungs,
    }
    write_json(Path("reports/ladder.json"), ladder)
    measured = {"folder_sha256": hashes["folder_sha256"], "weights_mb": 1234.0, "by_threads": {"1": cost}}
    write_json(Path("reports/cost.json"), {"machine": {}, "threads": 1, "rungs": {package.variant: measured}})
    return tmp_path


def page() -> str:
    """With wrong answers to two examples of the validation data."""
    examples = [
        {
            "id": f"v{i}",
            "prompt": f"example {i} {EVIL}",
            "expected": "off",
            "answer": answer,
            "cut": False,
            "tags": ["odd <b>tag</b>"],
        }
        for i, answer in enumerate(["on", EVIL, "off"])
    ]
    return report.render(report.gather(lambda: examples))


class Loads(HTMLParser):
    """What a browser would fetch or run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "link", "iframe", "object", "embed", "base", "use", "image"):
            self.found.append(tag)
        self.found += [
            f"{tag} {k}={v}"
            for k, v in attrs
            if k in ("src", "href", "xlink:href", "srcset") and not (v or "").startswith("#")
        ]
        self.found += [f"{tag} {k}" for k, _ in attrs if k.startswith("on")]


def judged(**changes: object) -> Verdict:
    """A verdict on the model that is here, as `slm gate` would have stored it."""
    model = Path("dist") / load_params().package.name / "model"
    candidate = {"revision": None, "folder_sha256": folder_sha256(model)}
    gates = [Row("score", "block", False, 0.1, 0.5, "shipped.score_low is 0.100, must be >= 0.5")]
    verdict = Verdict(gates, candidate, contract_sha256=sha256_file(Path("gates.yaml")))
    verdict = replace(verdict, **changes)
    write_json(Path("reports/verdict.json"), verdict.to_json())
    return verdict


def test_page_holds_the_ladder_and_the_verdict(checkout: Path) -> None:
    judged()
    html = page()
    for rung in RUNGS:
        assert f'<th scope="row">{rung}</th>' in html
    assert "The model is refused: score." in html and "1,234 ms" in html and "abacus" in html
    assert ">–</text>" in html  # figures that do not apply


@pytest.mark.parametrize("stale", ["none", "other model", "other contract"])
def test_a_verdict_that_does_not_speak_of_this_model_and_contract_is_not_shown(
    checkout: Path, stale: str
) -> None:
    if stale == "other model":
        judged(candidate={"revision": None, "folder_sha256": "another"})
    if stale == "other contract":
        judged()
        write_text(Path("gates.yaml"), Path("gates.yaml").read_text(encoding="utf-8") + "# looser\n")
    html = page()
    assert "This model is not judged yet: run `slm gate`." in html and "refused" not in html
    assert 'id="gates"' not in html


@pytest.mark.attack
def test_no_text_of_the_test_set_is_shown(checkout: Path) -> None:
    html = page()
    assert "example 0" in html and "example 2" not in html
    assert not [text for text in ("request 0", "request 1", "request 2") if text in html]
    assert "2 of 2, to 3 examples" in html


def test_data_is_text_and_nothing_is_loaded(checkout: Path) -> None:
    html = page()
    assert "&lt;script&gt;" in html and "odd &lt;b&gt;tag" in html
    assert not Loads(html).found
    assert not re.search(r"url\(|@import", html)
    assert "default-src 'none'" in html


def test_optional_facts_show_when_they_are_there(checkout: Path) -> None:
    write_json(Path("reports/curves/teach.json"), [])  # the teacher is an endpoint
    write_json(Path("reports/teach.json"), {"parameters_m": None})
    write_json(Path("reports/curves/distill.json"), [{"step": 5, "loss": 0.5}])
    importance = [{"round": 1, "layer": i, "loss": 1.0 + i} for i in range(3)]
    write_json(
        Path("reports/distill.json"),
        {"examples": 3, "steps": 5, "tokens": 9, "loss": 0.5, "layers": [1, 2], "importance": importance},
    )
    write_json(Path("reports/convert/teacher-onnx.json"), {"skipped": "the teacher is an endpoint"})
    html = page()
    assert (
        "Not trained here" in html and "keeps 2 of 3 layers" in html and "the teacher is an endpoint" in html
    )


def answered(classes: dict[str, int]) -> dict[str, object]:
    return {"records": sum(classes.values()), "words_mean": 4.0, "classes": classes, "tags": {}}


def test_synthetic_data_shows_before_and_after_the_filters(checkout: Path) -> None:
    facts = {
        "asked": 40,
        "kept": 30,
        "with_provenance": 30,
        "suites": [],
        "dropped_for": {"verify": 2, "schema": 8},
        "dropped_samples": {"verify": ["p1: verify: no"], "schema": [f"p2: schema: not JSON: {EVIL}"]},
        "summary_before": answered({EVIL: 8, "off": 12, "on": 20}),
        "summary": answered({"off": 12, "on": 18}),
    }
    write_json(Path("reports/synthetic.json"), facts)
    html = page()
    assert "wrote" not in html.split('id="data"')[1]
    rows = re.findall(r"<tr>(.*?)</tr>", html.split('id="data"')[1], re.DOTALL)
    cells = [re.findall(r">([^<>]*)</t[hd]>", row) for row in rows]
    assert ["schema", "8", "20.0%"] in [c[:3] for c in cells] and ["verify", "2", "5.0%"] in [
        c[:3] for c in cells
    ]
    assert (
        html.index('<th scope="row">schema') < html.index('<th scope="row">verify')
        and "p1: verify: no" in html
    )
    assert ["on", "20", "50.0%", "18", "60.0%", "90%"] in cells and [
        "off",
        "12",
        "30.0%",
        "12",
        "40.0%",
        "100%",
    ] in cells
    assert "0%" in next(c for c in cells if "20.0%" in c and "alert" in c[0])
    assert EVIL not in html and not Loads(html).found


def test_prompts_of_the_teacher_are_shown_with_their_filters(checkout: Path) -> None:
    invented = {
        "asked": 5,
        "kept": 3,
        "recipes": {"evolve": 3},
        "dropped_for": {"unreadable": 1, "duplicate": 1},
        "dropped_samples": {
            "unreadable": [f"evolve-0001: unreadable: {EVIL}"],
            "duplicate": ["evolve-0002-1: duplicate: x"],
        },
    }
    facts = {
        "asked": 3,
        "kept": 3,
        "suites": [],
        "dropped_for": {},
        "dropped_samples": {},
        "invented": invented,
    }
    write_json(
        Path("reports/synthetic.json"),
        facts | dict.fromkeys(("summary_before", "summary"), answered({"": 3})),
    )
    html = page()
    assert (
        "wrote 5 prompts itself; 3 were asked: 3 by evolve." in html
        and '<th scope="row">unreadable</th>' in html
    )
    assert "Balance over classes" not in html  # a task without classes has none
    assert "&lt;script&gt;" in html.split('id="data"')[1] and EVIL not in html and not Loads(html).found


def test_without_facts_it_says_what_to_run(
    checkout: Path,
) -> None:
    shutil.rmtree("reports")
    with pytest.raises(UserError, match="slm repro"):
        report.write_report()


def test_errors_come_most_informative_first() -> None:
    task = load_task(ROOT / "task/task.yaml").model_copy(update={"kind": "label", "labels": ["a", "b"]})
    rows = [
        {"id": str(i), "expected": "a", "answer": answer} for i, answer in enumerate(["a", "b", "b", "?"])
    ]
    found = report.errors(task, rows, {"1": "b", "2": "a", "3": "a"})
    assert [r["id"] for r in found] == ["3", "2", "1"]


def test_a_label_that_both_models_contradict_alike_is_to_look_at() -> None:
    task = load_task(ROOT / "task/task.yaml").model_copy(update={"kind": "label", "labels": ["a", "b", "c"]})
    rows = [
        {"id": str(i), "expected": "a", "answer": answer} for i, answer in enumerate(["b", "b", "?", "a"])
    ]
    wrong = report.errors(task, rows, {"0": "b", "1": "c", "2": "?", "3": "b"})
    assert [r["id"] for r in report.doubtful(task, wrong)] == ["0"]


def test_difference_marks_what_the_other_lacks() -> None:
    assert report.difference("lamp on", "lamp off") == (
        [("lamp ", False), ("on", True)],
        [("lamp ", False), ("off", True)],
    )


def test_a_teacher_that_knows_nothing_has_no_shares(checkout: Path) -> None:
    figures = {"score": 0.5, "request_ms_p50": 10.0, "rss_mb": 1.0, "weights_mb": 1.0}
    ladder = {"rungs": [{"name": "teacher", **figures, "score": 0.0}, {"name": "int4", **figures}]}
    score, time, *_ = report.tiles(ladder, "int4")
    assert (score["share"], time["share"]) == ("teacher: 0.000", "100% of the teacher’s 10 ms")
