"""The hidden exam: encrypted in the repository, asked without its answers, scored without a model."""

import json
from pathlib import Path

import pytest

from slm.errors import UserError
from slm.files import write_json, write_jsonl, write_text
from slm.verdict import exam

TASK_YAML = "name: t\nkind: label\ninstruction: i\nlabels: [a, b]\nlicense: CC0-1.0\n"


def row(i: str, text: str, answer: str) -> dict:
    return {
        "id": i,
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}],
    }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    source = Path(__file__).parent.parent
    for name in ("train", "validation", "test"):
        write_jsonl(Path(f"task/{name}.jsonl"), [row(f"{name}-1", f"a request of {name}", "a")])
    write_text(Path("task/task.yaml"), TASK_YAML)
    write_text(Path("gates.yaml"), (source / "gates.yaml").read_text(encoding="utf-8"))
    write_jsonl(Path("hidden.jsonl"), [row(f"e{i}", f"hidden request {i}", "ab"[i % 2]) for i in range(60)])
    exam.make_exam(Path("hidden.jsonl"))
    for part in (exam.REQUESTS, exam.EXPECTED):
        monkeypatch.setenv(exam.key_variable(part), (exam.EXAM_KEYS / f"{part}.key").read_text())
    return tmp_path


@pytest.mark.attack
def test_nothing_of_the_exam_can_be_read_without_its_keys(project: Path, monkeypatch: pytest.MonkeyPatch):
    for path in exam.EXAM_FOLDER.iterdir():
        assert b"hidden request" not in path.read_bytes()
    assert {p.stat().st_mode & 0o77 for p in exam.EXAM_KEYS.iterdir()} == {0}
    exam.open_requests(Path("requests.jsonl"))
    rows = [json.loads(line) for line in Path("requests.jsonl").read_text().splitlines()]
    assert len(rows) == 60 and all(set(r) == {"id", "messages"} for r in rows)
    assert all(m["role"] == "user" for r in rows for m in r["messages"]), "no expected answer"
    # The key of the requests does not open the answers.
    monkeypatch.setenv(
        exam.key_variable(exam.EXPECTED), (exam.EXAM_KEYS / f"{exam.REQUESTS}.key").read_text()
    )
    with pytest.raises(UserError, match="was not encrypted with the key"):
        exam._opened(exam.encrypted(exam.EXPECTED), exam.EXPECTED)
    monkeypatch.setenv(exam.key_variable(exam.EXPECTED), "no key")
    with pytest.raises(UserError, match="holds no key of the exam"):
        exam._opened(exam.encrypted(exam.EXPECTED), exam.EXPECTED)


@pytest.mark.attack
def test_a_changed_byte_of_the_exam_is_found(project: Path):
    path = exam.encrypted(exam.REQUESTS)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="was changed since"):
        exam.open_requests(Path("requests.jsonl"))


def heard(right: int) -> None:
    """Leave what a recheck leaves: a perfect public score, and `right` of 60 exam answers."""
    folder = exam.HEARD.parent
    replies = [{"id": f"e{i}", "answer": "ab"[i % 2] if i < right else "?", "cut": False} for i in range(60)]
    write_jsonl(exam.HEARD, replies)
    write_json(folder / "findings.json", {"commit": "a" * 40, "folder_sha256": "2" * 64})
    public = [{"id": str(i), "expected": "a", "answer": "a", "tags": []} for i in range(200)]
    write_jsonl(folder / "predictions.jsonl", [{"rung": "int4"}, *public])
    exam.close_answers()


@pytest.mark.attack
@pytest.mark.parametrize(("right", "passed"), [(60, True), (57, True), (0, False), (40, False)])
def test_a_lookup_table_of_the_public_test_fails_the_exam(right: int, passed: bool, project: Path):
    heard(right)
    assert not exam.HEARD.exists()
    result = exam.score_exam(exam.HEARD.parent, Path("exam-result/result.json"))
    assert result.passed is passed
    text = Path("exam-result/result.json").read_text(encoding="utf-8")
    assert "hidden request" not in text and json.loads(text)["passed"] is passed


@pytest.mark.attack
def test_an_exam_that_is_known_or_small_is_refused(project: Path):
    known = [row(f"e{i}", f"another {i}", "a") for i in range(60)] + [row("k", "A request of  test", "a")]
    write_jsonl(Path("known.jsonl"), known)
    with pytest.raises(UserError, match="1 requests stand in task/ too, such as k"):
        exam.make_exam(Path("known.jsonl"))
    write_jsonl(Path("few.jsonl"), known[:9])
    with pytest.raises(UserError, match="at least 50"):
        exam.make_exam(Path("few.jsonl"))
