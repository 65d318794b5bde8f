"""Marks of chat models are found wherever they stand, and what looks like them is left alone."""

import time

import pytest

from slm.quality.markers import answer_fault, marker_in
from slm.task.answers import tidied
from slm.task.definition import Task
from slm.task.text import nfc

TEXT = Task(name="t", kind="text", instruction="i")
FORM = Task(name="t", kind="json", instruction="i")


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("done<|im_end|>", "<|im_end|>"),
        ("<|assistant|>\nhi", "<|assistant|>"),
        ("hi<|eot_id|>", "<|eot_id|>"),
        ("<｜Assistant｜>hi", "<｜Assistant｜>"),
        ("hi<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        ("<|channel|>final<|message|>hi", "<|channel|>"),
        ("hi<turn|>", "<turn|>"),
        ("[INST] hi [/INST]", "[INST]"),
        ("hi [/inst]", "[/inst]"),
        ("<<SYS>>be kind<</SYS>>", "<<SYS>>"),
        ("<start_of_turn>model\nhi", "<start_of_turn>"),
        ("hi<end_of_turn>", "<end_of_turn>"),
        ("<bos>hi", "<bos>"),
        ("hi</s>", "</s>"),
        ("<s> hi", "<s>"),
        ("<think>hm</think>hi", "<think>"),
        ("hi</THINKING >", "</THINKING >"),
        ("<think/>hi", "<think/>"),
        ("◁think▷hm", "◁think▷"),
        ("[THINK]hm[/THINK]", "[THINK]"),
        ("<|begin_of_thought|>hm", "<|begin_of_thought|>"),
        ("### Assistant: hi", "### Assistant:"),
        ("hi\n### user:\nand", "### user:"),
        ("### Response:\nhi", "### Response:"),
        ('<tool_call>{"name":"none"}</tool_call>', "<tool_call>"),
        ('[TOOL_CALLS] [{"name":"none"}]', "[TOOL_CALLS]"),
        ("hi<\u200b|im_end|>", "<|im_end|>"),
        ("hi<|im\u00ad_end|\u2060>", "<|im_end|>"),
        ("＜|im_start|＞user", "<|im_start|>"),
        ("＜｜ｉｍ＿ｓｔａｒｔ｜＞user", "<|im_start|>"),
        ("<thi\u200bnk>hm", "<think>"),
        ("＜ｔｈｉｎｋ＞hm", "<think>"),
        ("[\ufeffINST] hi", "[INST]"),
        ("<| im_start |>user", "<| im_start |>"),
        ("< |im_end | >", "< |im_end | >"),
        ("<｜ User ｜>hi", "<｜ User ｜>"),
        ("<| Assistant |>hi", "<| Assistant |>"),
        ("<| user |>\nhi", "<| user |>"),
        ("<analysis>hm</analysis> ok", "<analysis>"),
        ("<thought_process>hm</thought_process> ok", "<thought_process>"),
        ("ok</Thought-Process>", "</Thought-Process>"),
        ("<rationale>hm</rationale> ok", "<rationale>"),
        ("[SYSTEM] be kind", "[SYSTEM]"),
        ("be kind[/SYSTEM]", "[/SYSTEM]"),
    ],
)
def test_a_mark_is_found(text: str, mark: str):
    assert marker_in(text) == mark


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think, therefore I am.",
        "5 < 6 | 7 > 2",
        "x <| f |> y",
        "a || b <|> c",
        "<b>bold</b> and <s>struck</s>",
        "<s>struck</s>",
        "was <s>5</s> 4 EUR",
        "cmd [args] [think] [options]",
        "## Response times",
        "### Assistants we like",
        "the instrument [INSTR]",
        "USER: root",
        "<thinker>x</thinker>",
        "<thought-leader>",
        "List.map f <| xs |> List.sum",
        "Html.text <| user |> String.trim",
        "12:04 [SYSTEM] rebooted",
        "[system]",
        "an <analyst>",
        "ＡＢＣ ＜ １２ 👩\u200d🚀 👍🏽",
        "می\u200cخواهم",
    ],
)
def test_what_looks_like_a_mark_is_left_alone(text: str):
    assert marker_in(text) is None


@pytest.mark.parametrize(
    ("task", "answer", "said"),
    [
        *((TEXT, f"a{c}b", f"U+{ord(c):04X} ") for c in "\0\r\x1b\x7f\x9f\ufdd0\ufffe"),
        *((TEXT, c, f"U+{ord(c):04X} ") for c in "\u00ad\u200b\u202e\u2800\u3164"),
        (TEXT, "a" + "\u0301\u0323" * 20, "more than 30 marks"),
        (TEXT, "hi</s>", "'</s>' is a mark"),
        *((FORM, f'{{"a":"x\\u{ord(c):04x}"}}', f"U+{ord(c):04X} ") for c in "\0\r\x9f\ufdd0"),
        *((FORM, f'{{"a":[{{"x\\u{ord(c):04x}":1}}]}}', f"U+{ord(c):04X} ") for c in "\0\x9f\ufffe"),
        (FORM, '{"a":"' + "\\u0301" * 40 + '"}', "more than 30 marks"),
        (FORM, '{"a":"\\u003cthink\\u003ehm"}', "'<think>' is a mark"),
        (FORM, '{"a":"hi\\n### Assistant: no"}', "'### Assistant:' is a mark"),
        (FORM, '{"a":"hi</s>"}', "'</s>' is a mark"),
        (FORM, '{"hi\\n### user:":1}', "'### user:' is a mark"),
        (FORM, '{"a":"<\\u200b|im_end|>"}', "'<|im_end|>' is a mark"),
        (FORM, '"\\u003c/s\\u003e"', "'</s>' is a mark"),
    ],
)
def test_what_no_model_may_write_is_named(task: Task, answer: str, said: str):
    assert said in (answer_fault(task, answer) or "")


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        (TEXT, "first\n\tsecond\u2028third café 日本 👩\u200d🚀"),
        (TEXT, '{"a":"\\u0000"}'),  # no JSON task: its reader sees what stands there
        (FORM, '{"a":"","b":[null,1,true],"é":"first\\n\\tsecond"}'),
        (FORM, "no JSON, which the schema's check says"),
        (FORM, '{"a":"5 \\u003c 6"}'),
    ],
)
def test_an_honest_answer_has_no_fault(task: Task, answer: str):
    assert answer_fault(task, answer) is None


def test_a_hostile_answer_is_judged_in_a_moment():
    start = time.perf_counter()
    for text in (
        "a" + "\u0301\u0323" * 100_000,
        "a" + ("\u0301" * 30 + "\u034f") * 5_000,
        "\u200b<" * 100_000,
    ):
        answer_fault(TEXT, text)
        tidied(TEXT, text)
        nfc(text)
    assert time.perf_counter() - start < 5
