"""One definition of text, in every script."""

import unicodedata

import pytest
from scripts import SCRIPTS, Script

from slm.quality.frame import frame
from slm.quality.leaks import Leaks
from slm.quality.similarity import NEAR, Index, typos
from slm.task.answers import schema_error
from slm.task.definition import SCORES, Task
from slm.task.metrics import score_one, summarise
from slm.task.numbers import number_of
from slm.task.records import Record
from slm.task.text import graphemes, normal, stands_in, unusual, words

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


@each_script
def test_requests_are_told_apart_in_every_script(script: Script):
    index = Index([("test:1", script.text)])
    assert index.nearest(script.text) == ("test:1", 1.0)
    assert index.nearest(script.near)[1] > NEAR
    assert index.nearest(script.other)[1] < 0.2
    composed, apart = (unicodedata.normalize(form, script.text) for form in ("NFC", "NFD"))
    assert normal(composed) == normal(apart) and index.nearest(apart)[1] == 1.0


def asked(text: str) -> Record:
    return Record("1", [{"role": "user", "content": text}])


@each_script
def test_a_leak_is_named_in_every_script(script: Script):
    task = Task(name="t", kind="text", instruction="i")
    held_out = Leaks([("task/test.jsonl:1", asked(script.text))])
    table = frame(task, [asked(script.near), asked(script.other)], held_out)
    assert "task/test.jsonl:1" in table["leak"][0] and not table["leak"].notna()[1]
    assert table["text_words"].min() > 8


@each_script
def test_a_hidden_leak_is_found_in_every_script(script: Script):
    """Each way to hide a request, what is said of it, and whether it is refused by itself."""
    blank = " " if " " in script.text else ""
    said, others = words(script.text), words(script.other)
    filled = [part for i, word in enumerate(said) for part in (word, others[i % len(others)])]
    ways = {
        script.text + blank + script.other: ("whole", True),
        script.other + blank + script.text: ("whole", True),
        script.text + blank + script.text: ("near", True),
        "\u200b".join(script.text) + blank + script.other: ("whole", True),
        blank.join(filled): ("between", False),
        blank.join(reversed(said)): ("order", False),
    }
    if blank:
        ways["".join(said)] = ("spaced", True)
    masked = script.text
    for letter, like in (script.masks or {}).items():
        masked = masked.replace(letter, like)
    if script.masks:
        assert masked != script.text
        ways |= {masked: ("near", True), masked + blank + script.other: ("whole", True)}
    leaks = Leaks([("test:1", asked(script.text))])
    for text, (kind, certain) in ways.items():
        found = leaks.found_in(asked(text))
        assert found is not None and found == ("test:1", kind, certain), (text, found)
    assert leaks.found_in(asked(script.other)) is None
    assert leaks.found_in(asked(script.quoted)) is None


@each_script
def test_one_typo_in_a_long_word_is_the_same_request(script: Script):
    if script.typo is None:
        one, other = script.text, script.text[:6] + script.text[7:]
        assert not typos(one) & typos(other)  # a character less is another word
    else:
        one, other = script.typo
        assert one != other and typos(one) & typos(other)


@each_script
def test_a_quoted_answer_stands_in_the_passage(script: Script):
    task = Task(name="t", kind="answer", instruction="i")
    assert schema_error(task, script.text, script.quoted) is None
    assert "does not stand in the passage" in (schema_error(task, script.text, script.absent) or "")
    apart = unicodedata.normalize("NFD", script.quoted)
    assert stands_in(apart, script.text)


KINDS = [(kind, score) for kind, scores in SCORES.items() for score in scores]


@each_script
@pytest.mark.parametrize(("kind", "score"), KINDS)
def test_a_text_against_itself_is_1_and_against_another_less(script: Script, kind: str, score: str):
    more = {"labels": [script.quoted, script.absent]} if kind == "label" else {}
    task = Task(name="t", kind=kind, score=score, instruction="i", **more)  # type: ignore[arg-type]
    written = {"json": '{{"name":"{}"}}', "reasoning": "Answer: {}"}.get(kind, "{}")
    one, other = (written.format(text) for text in (script.quoted, script.absent))
    assert score_one(task, one, one)["score"] == 1
    assert score_one(task, one, unicodedata.normalize("NFD", one))["score"] == 1
    assert score_one(task, one, other)["score"] < 0.6
    if kind == "text":
        rows = [{"expected": script.text, "answer": script.text, "tags": []}]
        assert summarise(task, rows)["bleu"] == pytest.approx(1)
        assert score_one(task, script.text, script.near)["score"] > 0.8


DIFFERENT = [
    ("12 + 7", "12 - 7"),
    ("12 + 7", "12 − 7"),
    ("12 * 7", "12 / 7"),
    ("3 < 5", "3 > 5"),
    ("3 ≤ 5", "3 ≥ 5"),
    ("-5 degrees", "5 degrees"),
    ("1.5 litres", "15 litres"),
    ("50% of it", "50 of it"),
    ("$5", "€5"),
    ("C++ or C", "C# or C"),
    ("👍", "👎"),
    ("so 😀", "so 😡"),
    ("🇩🇪 flag", "🇫🇷 flag"),
    ("👩‍🚀", "👩‍🚒"),
    ("काम", "कम"),
    ("कि", "की"),
    ("ปิดไฟในห้องนอน", "เปิดไฟในห้องนอน"),
    ("关上客厅的灯", "打开客厅的灯"),
    ("x ∧ y", "x ∨ y"),
    ("-$5", "$5"),
    ("5 - x", "5 x"),
    ("温度-5度", "温度5度"),
    (".5", "5"),
    ("a != b", "a = b"),
    (":)", ":("),
    ("???", "!!!"),
    ("♀", "♂"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_signs_marks_and_emoji_change_the_meaning(one: str, other: str):
    assert normal(one) != normal(other)
    assert Index([("a", one)]).nearest(other)[1] <= NEAR


SAME = [
    ("Turn it on!", "turn it on"),
    ("café", "cafe\u0301"),
    ("12 − 7", "12 - 7"),
    ("Straße", "STRASSE"),
    ("in\u00adter\u200bnational", "international"),
    ("❤️", "❤"),
    ("«Привет», мир", "привет мир"),
    ("开灯。", "开灯"),
    ("नमस्ते।", "नमस्ते"),
    ("e-mail Ann", "e mail ann"),
    ("می\u200cروم", "میروم"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_case_punctuation_form_and_unseen_characters_do_not(one: str, other: str):
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1,200.50", "1200.5", True),
        ("1.200,50", "1200.5", True),
        ("1 200,50", "1200.5", True),
        ("12,34,567", "1234567", True),
        ("−5", "-5", True),
        ("50 %", "50%", True),
        ("50%", "0.5", True),
        ("½", "1/2", True),
        ("1½", "1.5", True),
        ("3/4", "0,75", True),
        ("१२", "12", True),
        ("0,125", "0.125", True),
        ("0,125", "125", False),
        ("３．５", "3.5", True),
        ("–5", "-5", True),
        ("%50", "50 %", True),
        ("۵۔", "5", True),
        ("\U00010d41", "1", False),  # a digit that Python does not know yet
        ("٣٫٥", "3.5", True),
        ("１２", "12", True),
        ("1,200", "1.200", False),
        ("5", "-5", False),
        ("50%", "50", False),
        ("1/3", "0.33", False),
    ],
)
def test_numbers_are_compared_in_all_their_written_forms(one: str, other: str, same: bool):
    task = Task(name="t", kind="reasoning", instruction="i")
    assert score_one(task, f"Answer: {one}", f"Answer: {other}")["score"] == same


@pytest.mark.parametrize("text", ["", "-", "1/0", "12 apples", "$5", "1,2,3", "--5", "9" * 300])
def test_what_is_no_number_is_none(text: str):
    assert number_of(text) is None


@pytest.mark.parametrize(
    ("quoted", "text", "stands"),
    [
        ("서울", "나는 서울에서 산다", True),  # particles are joined to words
        ("ירושלים", "אני גר בירושלים", True),
        ("东京", "2020东京奥运", True),
        ("20 minutes.", "It takes 20 minutes, roughly", True),
        ("200", "1,200 people", False),
        ("5", "costs 1.5 euros", False),
        ("cat", "a category", False),
    ],
)
def test_a_quote_is_a_whole_word_or_number(quoted: str, text: str, stands: bool):
    assert stands_in(quoted, text) is stands


def test_a_short_text_against_itself_has_a_bleu_of_1():
    task = Task(name="t", kind="text", instruction="i")
    for text in ("turn left", "สวัสดี"):
        assert summarise(task, [{"expected": text, "answer": text, "tags": []}])["bleu"] == 1


def test_words_and_characters_are_counted_as_people_do():
    assert words("Don't call me at 7.30, please") == ["Don't", "call", "me", "at", "7.30", "please"]
    assert words("เปิดไฟในห้องนอน") == ["เปิด", "ไฟ", "ใน", "ห้อง", "นอน"]
    assert len(graphemes("नमस्ते")) == 3 and len(graphemes("👩‍🚀é")) == 2


def test_look_alikes_are_shown_by_name():
    task = Task(name="t", kind="label", instruction="i", labels=["cat", "dog"])
    assert "U+0430 CYRILLIC SMALL LETTER A" in (schema_error(task, "", "c\u0430t") or "")
    assert "U+200B ZERO WIDTH SPACE" in (schema_error(task, "", "cat\u200b") or "")
    assert unusual("日本語のテキスト") == unusual("plain text") == ""
