"""Each figure of an answer against its reference implementation, on random pairs."""

import json
import random
import string

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import hmean
from scripts import SCRIPTS
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer
from torchmetrics.functional.text import squad

from slm.task.definition import Task
from slm.task.metrics import score_one, summarise

PAIRS = 200
COMMON = [
    "the",
    "a",
    "an",
    "pump",
    "was",
    "on",
    "off",
    "Monday,",
    "20",
    "reset;",
    "button",
    "hold",
    "don't",
    "U.S.",
    "(red)",
    "lamp—is",
    "Ünïcode",
    "1.5",
    "e-mail",
]


def pairs(seed: int = 0) -> list[tuple[str, str]]:
    """Random texts of ASCII and a few other words, from unlike to nearly the same."""
    draw = random.Random(seed)
    made = []
    for _ in range(PAIRS):
        one = draw.choices(COMMON, k=draw.randint(1, 12))
        other = [draw.choice(COMMON) if draw.random() < 0.3 else word for word in one]
        made.append((" ".join(one), " ".join(other[: draw.randint(1, 12)]) + draw.choice(["", ".", "!"])))
    return made


def ascii_pairs() -> list[tuple[str, str]]:
    return [(one, other) for one, other in pairs(1) if (one + other).isascii()]


def test_rouge_l_is_that_of_rouge_score_on_ascii():
    task, reference = Task(name="t", kind="text", instruction="i"), RougeScorer(["rougeL"])
    assert len(ascii_pairs()) > 50
    for one, other in ascii_pairs():
        assert score_one(task, one, other)["rouge_l"] == pytest.approx(
            reference.score(one, other)["rougeL"].fmeasure
        )


def test_chrf_is_that_of_sacrebleu_in_every_script():
    task = Task(name="t", kind="text", instruction="i")
    texts = [script.text for script in SCRIPTS] + [script.near for script in SCRIPTS]
    for one, other in [*pairs(), *((a, b) for a in texts for b in texts)]:
        assert score_one(task, one, other)["chrf"] == pytest.approx(
            min(1, sacrebleu.sentence_chrf(other, [one]).score / 100)
        )


def test_bleu_is_that_of_sacrebleu_with_its_tokenizer_for_the_script():
    task = Task(name="t", kind="text", instruction="i")
    for tokenizer, rows in (("13a", pairs()), ("zh", [(SCRIPTS[9].text, SCRIPTS[9].near)])):
        said = [{"expected": one, "answer": other, "tags": []} for one, other in rows]
        expected = sacrebleu.corpus_bleu(
            [other for _, other in rows], [[one for one, _ in rows]], tokenize=tokenizer
        )
        assert summarise(task, said)["bleu"] == pytest.approx(expected.score / 100)


def test_quoted_answers_are_scored_as_torchmetrics_does():
    task = Task(name="t", kind="answer", instruction="i")
    draw = random.Random(2)
    letters = [
        ("".join(draw.choices(string.printable[:95], k=9)), "".join(draw.choices(string.printable[:95], k=9)))
        for _ in range(PAIRS)
    ]
    for one, other in [*pairs(), *letters]:
        target = {"id": "", "answers": {"text": [one], "answer_start": [0]}}
        found = squad({"id": "", "prediction_text": other}, target)
        row = score_one(task, one, other)
        assert row["token_f1"] == pytest.approx(float(found["f1"]) / 100, abs=1e-6), (one, other)
        assert row["exact_match"] == pytest.approx(float(found["exact_match"]) / 100), (one, other)


def test_field_f1_is_that_of_scikit_learn_on_flat_answers():
    task, draw = Task(name="t", kind="json", score="field_f1", instruction="i"), random.Random(3)
    marked = MultiLabelBinarizer(classes=[(key, value) for key in "abcdef" for value in range(3)])
    answers = [
        [{key: draw.randint(0, 2) for key in draw.sample("abcdef", draw.randint(1, 6))} for _ in range(PAIRS)]
        for _ in range(2)
    ]
    want, got = (marked.fit_transform([[*answer.items()] for answer in side]) for side in answers)
    rows = [
        {"expected": json.dumps(one), "answer": json.dumps(other), "tags": []}
        for one, other in zip(*answers, strict=True)
    ]
    for i, row in enumerate(rows):
        assert score_one(task, row["expected"], row["answer"])["field_f1"] == pytest.approx(
            f1_score(want[i : i + 1], got[i : i + 1], average="samples", zero_division=0)
        )
    assert summarise(task, rows)["field_f1"] == pytest.approx(f1_score(want, got, average="micro"))


@pytest.mark.parametrize(
    ("want", "got", "f1"),
    [
        ([1, 1], [1], hmean([1 / 2, 1])),  # a multiset: one of the two is missed
        ([1], [1, 1, 1], hmean([1, 1 / 3])),
        ([{"n": "a", "q": 1}, {"n": "b", "q": 2}], [{"n": "b", "q": 2}, {"n": "a", "q": 1}], 1),
        # fields belong to their objects: quantities that changed places are wrong
        ([{"n": "a", "q": 1}, {"n": "b", "q": 2}], [{"n": "a", "q": 2}, {"n": "b", "q": 1}], 1 / 2),
        ([{"n": "a", "q": 1}], [{"n": "a", "q": 1}, {"n": "c", "q": 3}], hmean([1, 1 / 2])),
        ([], [], 1),  # an empty list is said, too
        ({"items": []}, {}, 0),
        ({"items": [], "n": 1}, {"items": [], "n": 2}, 1 / 2),
        ({"a": {}}, {"a": []}, 0),
        ([[1, 2], [3]], [[3], [2, 1]], 1),
    ],
)
def test_field_f1_of_lists_objects_and_empty_containers(want: object, got: object, f1: float):
    task = Task(name="t", kind="json", score="field_f1", instruction="i")
    row = score_one(task, json.dumps(want), json.dumps(got))
    assert row["field_f1"] == pytest.approx(f1)
    assert np.isclose(score_one(task, json.dumps(got), json.dumps(want))["field_f1"], f1)


def test_letter_case_counts_where_an_enumeration_stands_on_it():
    schema = {
        "type": "object",
        "properties": {"to": {"enum": ["us", "US", "Kim"]}, "text": {"type": "string"}},
    }
    task = Task(name="t", kind="json", instruction="i", answer_schema=schema)
    assert score_one(task, '{"to":"us"}', '{"to":"US"}')["score"] == 0
    assert score_one(task, '{"to":"Kim"}', '{"to":"kim"}')["score"] == 0  # the schema does not allow it
    assert score_one(task, '{"to":"us","text":"Call Me"}', '{"text":"call me","to":"us"}')["score"] == 1
