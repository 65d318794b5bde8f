import pytest

from slm.task.definition import SCORES, Task
from slm.task.metrics import interval, score_one, summarise

EXPECTED = '{"name":"a","arguments":{"n":21,"t":"Hey Jude"}}'


@pytest.mark.parametrize(
    ("answer", "score", "valid"),
    [
        (EXPECTED, 1, True),
        ('{"arguments": {"t": " hey jude ", "n": 21.0}, "name": "a"}', 1, True),  # the same meaning
        ('{"arguments": {"t": "Hey Jude", "n": 21}, "name": "A"}', 0, False),  # the schema has no such name
        ('{"NAME":"a","arguments":{"n":21,"t":"Hey Jude"}}', 0, False),
        ('{"name":"a","name":"a","arguments":{"n":21,"t":"Hey Jude"}}', 0, False),  # which one counts?
        ('{"name":"a","arguments":{"n":21}}', 0, True),
        ('{"name":"a","arguments":{"n":true,"t":"hey jude"}}', 0, False),
        ('{"name":"a","arguments":{"n":21,"t":"hey jude","x":1}}', 0, True),
        ('{"name":"a"', 0, False),
        ("", 0, False),
        ("[" * 100_000, 0, False),
        ("[" * 600 + "]" * 600, 0, False),  # can be read; what walks through it would not come back
        ('{"name":"a","arguments":{"n":' + "9" * 5000 + "}}", 0, False),
    ],
)
def test_exact_match_sees_meaning_only(task: Task, answer: str, score: float, valid: bool):
    row = score_one(task, EXPECTED, answer)
    assert (row["score"], row["valid"]) == (score, valid)


def test_true_is_not_one(task: Task):
    assert (
        score_one(task, '{"name":"a","arguments":{"n":1}}', '{"name":"a","arguments":{"n":true}}')["score"]
        == 0
    )


def test_field_f1_counts_fields(task: Task):
    predictions = [{"expected": EXPECTED, "answer": '{"name":"a","arguments":{"n":20}}', "tags": ["typo"]}]
    facts = summarise(task, predictions)
    # one right (name), one wrong (n), two missed (n, t)
    assert facts["field_f1"] == pytest.approx(2 / (2 + 1 + 2))
    assert facts["slices"]["tag:typo"] == {"n": 1, "score": 0.0}
    assert facts["class_f1"] == {"a": 1.0}


def test_label_task():
    task = Task(name="t", kind="label", instruction="i", labels=["yes", "no"])
    assert score_one(task, "yes", "Yes") == {"valid": False, "score": 0.0, "exact_match": 0.0}  # no label
    facts = summarise(
        task,
        [
            {"expected": "yes", "answer": " yes", "tags": []},
            {"expected": "no", "answer": "perhaps", "tags": []},
        ],
    )
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


def test_an_answer_can_be_partly_right_where_the_task_says_so(task: Task):
    graded = task.model_copy(update={"score": "field_f1"})
    answer = '{"name":"a","arguments":{"n":20}}'
    assert score_one(task, EXPECTED, answer)["score"] == 0
    assert score_one(graded, EXPECTED, answer)["score"] == pytest.approx(2 / 5)
    assert (
        score_one(graded, EXPECTED, EXPECTED)["score"] == 1
        and score_one(graded, EXPECTED, "no")["score"] == 0
    )
    assert summarise(graded, [{"expected": EXPECTED, "answer": answer, "tags": []}])["exact_match"] == 0


def test_macro_f1_of_labels_sees_the_rare_class():
    task = Task(name="t", kind="label", instruction="i", labels=["bug", "question"])
    said = [("bug", "bug")] * 9 + [("question", "bug")]
    facts = summarise(task, [{"expected": e, "answer": a, "tags": []} for e, a in said])
    assert facts["score"] == 0.9
    assert facts["macro_f1"] == pytest.approx((18 / 19 + 0) / 2)


@pytest.mark.parametrize(
    ("answer", "rouge_l", "chrf"),
    [
        ("The pump was replaced on Monday.", 1, 1),
        ("the pump was replaced on monday", 1, pytest.approx(0.8, abs=0.1)),  # letters differ, words do not
        # another order of the same words
        ("On Monday the pump was replaced.", pytest.approx(4 / 6), pytest.approx(0.8, abs=0.1)),
        ("The parcel arrived in Leeds.", pytest.approx(2 / 11), pytest.approx(0.15, abs=0.1)),
        ("", 0, 0),
    ],
)
def test_texts_are_compared_by_words_and_by_letters(answer: str, rouge_l: float, chrf: float):
    expected = "The pump was replaced on Monday."
    row = score_one(Task(name="t", kind="text", instruction="i"), expected, answer)
    assert (row["score"], row["rouge_l"], row["chrf"]) == (rouge_l, rouge_l, chrf)
    assert (
        score_one(Task(name="t", kind="text", score="chrf", instruction="i"), expected, answer)["score"]
        == chrf
    )


@pytest.mark.parametrize(
    ("answer", "token_f1", "exact"),
    [
        ("hold the reset button", 1, 1),
        ("Hold reset button.", 1, 1),  # case, article and full stop say nothing
        ("the reset button", pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3)), 0),
        ("unplug it", 0, 0),
        ("", 0, 0),
    ],
)
def test_quoted_answers_are_scored_as_squad_does(answer: str, token_f1: float, exact: float):
    row = score_one(Task(name="t", kind="answer", instruction="i"), "hold the reset button", answer)
    assert (row["score"], row["token_f1"], row["exact_match"]) == (token_f1, token_f1, exact)
    assert (
        score_one(
            Task(name="t", kind="answer", score="exact_match", instruction="i"),
            "hold the reset button",
            answer,
        )["score"]
        == exact
    )


@pytest.mark.parametrize(
    ("answer", "score", "valid"),
    [
        ("3 x 400 = 1200\nAnswer: 1200", 1, True),
        # only the final answer counts, as a number
        ("A wrong way that ends well.\nAnswer: 1,200.00", 1, True),
        ("Answer: 7\nNo: 3 x 400.\nAnswer: 1200.", 1, True),  # the last one
        ("3 x 400 = 1200\nAnswer: 1201", 0, True),
        ("3 x 400 = 1200\nAnswer: 12,00", 0, True),
        ("3 x 400 = 1200\nAnswer: 1200 g", 0, True),
        ("3 x 400 = 1200", 0, False),
        ("3 x 400 = 1200\nAnswer:", 0, False),
        ("Answer: 1200\nor so", 0, False),
    ],
)
def test_only_the_final_answer_of_a_rationale_counts(answer: str, score: float, valid: bool):
    row = score_one(Task(name="t", kind="reasoning", instruction="i"), "400 each.\nAnswer: 1200", answer)
    assert (row["score"], row["valid"]) == (score, valid)


def test_a_final_answer_in_words_is_compared_as_words():
    task = Task(name="t", kind="reasoning", instruction="i")
    assert score_one(task, "It is dearer.\nAnswer: Shop A", "Answer: shop a.")["score"] == 1
    assert score_one(task, "It is dearer.\nAnswer: Shop A", "Answer: shop b")["score"] == 0


def test_a_score_that_the_kind_does_not_have_is_refused():
    with pytest.raises(ValueError, match="'bleu' is no figure of kind text; there are: rouge_l, chrf"):
        Task(name="t", kind="text", score="bleu", instruction="i")
    with pytest.raises(ValueError, match="at least two labels"):
        Task(name="t", kind="label", instruction="i", labels=["one"])


@pytest.mark.parametrize("kind", SCORES)
def test_an_answer_that_is_the_label_is_worth_one_by_every_figure(kind: str):
    said = {
        "json": EXPECTED,
        "label": "yes",
        "text": "Yes, at 9.",
        "answer": "at 9",
        "reasoning": "So.\nAnswer: 9",
    }[kind]
    for score in SCORES[kind]:
        task = Task(name="t", kind=kind, score=score, instruction="i", labels=["yes", "no"])
        assert score_one(task, said, said)["score"] == 1
        assert score_one(task, said, "")["score"] == 0
