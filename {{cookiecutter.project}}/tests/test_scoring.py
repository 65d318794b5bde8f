import pytest

from slm.scoring import interval, score_one, summarise
from slm.task import Task

EXPECTED = '{"name":"a","arguments":{"n":21,"t":"Hey Jude"}}'


@pytest.mark.parametrize(
    ("answer", "score", "valid"),
    [
        (EXPECTED, 1, True),
        ('{"arguments": {"t": " hey jude ", "n": 21.0}, "name": "A "}', 1, False),  # same meaning; the schema's name is not "A "
        ('{"name":"a","arguments":{"n":21}}', 0, True),
        ('{"name":"a","arguments":{"n":true,"t":"hey jude"}}', 0, False),
        ('{"name":"a","arguments":{"n":21,"t":"hey jude","x":1}}', 0, True),
        ('{"name":"a"', 0, False),
        ("", 0, False),
        ("[" * 100_000, 0, False),
    ],
)
def test_exact_match_sees_meaning_only(task: Task, answer: str, score: float, valid: bool):
    row = score_one(task, EXPECTED, answer)
    assert (row["score"], row["valid"]) == (score, valid)


def test_true_is_not_one(task: Task):
    assert score_one(task, '{"name":"a","arguments":{"n":1}}', '{"name":"a","arguments":{"n":true}}')["score"] == 0


def test_field_f1_counts_fields(task: Task):
    predictions = [{"expected": EXPECTED, "answer": '{"name":"a","arguments":{"n":20}}', "tags": ["typo"]}]
    facts = summarise(task, predictions)
    # one right (name), one wrong (n), two missed (n, t)
    assert facts["field_f1"] == pytest.approx(2 / (2 + 1 + 2))
    assert facts["slices"]["tag:typo"] == {"n": 1, "score": 0.0}
    assert facts["class_f1"] == {"a": 1.0}


def test_label_task():
    task = Task(name="t", kind="label", instruction="i", labels=["yes", "no"])
    facts = summarise(task, [{"expected": "yes", "answer": "Yes", "tags": []}, {"expected": "no", "answer": "perhaps", "tags": []}])
    assert (facts["score"], facts["valid_rate"]) == (0.5, 0.5)


def test_text_task():
    task = Task(name="t", kind="text", instruction="i")
    facts = summarise(task, [{"expected": "the cat sat", "answer": "the cat sat", "tags": []}])
    assert facts["score"] == 1


def test_interval_holds_the_mean():
    low, high = interval([1.0] * 8 + [0.0] * 2)
    assert 0.4 < low < 0.8 < high < 1.0


def test_two_answers_that_cannot_be_read_are_not_the_same(task: Task):
    """Models are compared with each other too, and neither may say JSON."""
    row = score_one(task, "{not json", "{not json")
    assert (row["score"], row["hits"], row["wrong"], row["missed"]) == (0, 0, 0, 0)
    assert score_one(task, "{not json", EXPECTED)["score"] == 0
