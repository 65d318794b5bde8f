"""Marks of chat models are found wherever they stand, and what looks like them is left alone."""

import pytest

from slm.quality.markers import marker_in


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
    ],
)
def test_what_looks_like_a_mark_is_left_alone(text: str):
    assert marker_in(text) is None
