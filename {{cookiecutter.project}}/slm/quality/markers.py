"""Marks that chat models put around what they say: control sequences, tags of roles, of thoughts and of tool
calls.

No answer that a model learns from holds any of them, or it learns to write them.
"""

import re
import unicodedata
from collections.abc import Iterator

import regex

from slm.task.definition import Task
from slm.task.strict import Unreadable, composed, no_text_in, strict_json, text_fault, texts_in

_THOUGHT = (
    r"(?:think|thinking|thoughts?(?:[_-]process)?|reasoning|rationale|analysis|reflection|scratchpad"
    r"|seed:think)"
)
THOUGHT_OPENS = re.compile(
    rf"(?i:<\s*{_THOUGHT}(?:\s[^<>]{{0,80}})?/?>|◁\s*{_THOUGHT}\s*▷)|\[THINK\]|<\|begin_of_thought\|>"
)
THOUGHT_CLOSES = re.compile(
    rf"(?i:<\s*/\s*{_THOUGHT}\s*>|◁\s*/\s*{_THOUGHT}\s*▷)|\[/THINK\]|<\|end_of_thought\|>"
)
# What each mark is for, and its pattern.
MARKERS = {
    "thoughts": f"{THOUGHT_OPENS.pattern}|{THOUGHT_CLOSES.pattern}",
    # <|im_end|>, <|assistant|>, <｜Assistant｜> of DeepSeek; <|turn> and <turn|> of Gemma. F# and Elm have
    # operators <| and |>: between blanks, the name must be one of a chat template.
    "control sequence": r"<[|｜][^\s<>|｜]{1,40}[|｜]>|<\s*｜\s*[^\s<>|｜]{1,40}\s*｜\s*>"
    r"|(?im:<\s*\|\s*(?:im_(?:start|end|sep)|endoftext|eot_id|eom_id|(?:start|end)_header_id"
    r"|(?:begin|end|start)_of_[a-z]{1,20}|assistant)\s*\|\s*>"
    r"|^[ \t]*<\s*\|\s*(?:system|user)\s*\|\s*>)"
    r"|(?i:<\|(?:turn|channel|think|tool|tool_call|tool_response)>"
    r"|<(?:turn|channel|think|tool|tool_call|tool_response)\|>)",
    "turn": r"(?i:</?(?:start_of_turn|end_of_turn|end_of_utterance|end_of_text|bos|eos|pad|unk)>"
    r"|<extra_id_\d{1,3}>)",
    # HTML strikes text out between the same two: one of them alone is a model's
    "sentence": r"\A\s*<s>(?!(?s:.)*</s>)|\A(?!(?s:.)*<s>)(?s:.)*?(</s>)\s*\Z",
    "role": r"(?i:\[/?INST\]|<</?SYS>>)|\[/?SYSTEM_PROMPT\]"
    r"|\[/SYSTEM\]|(?m:^[ \t]*\[SYSTEM\])"
    r"|(?im:^[ \t]*###[ \t]*(?:assistant|user|human|system|instruction|response)[ \t]*:)",
    "tool call": r"(?i:</?(?:tool_calls?|tool_response|function_calls?)>)"
    r"|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
}
_COMPILED = [re.compile(pattern) for pattern in MARKERS.values()]


_UNSEEN = regex.compile(r"\p{Default_Ignorable_Code_Point}")


def marker_in(text: str) -> str | None:
    """The first mark of a chat model in a text, as it stands there; None where there is none.

    A mark counts too if only unseen characters or full-width letters keep it apart: the tokenizers of some
    families undo both.
    """
    for form in dict.fromkeys((text, _as_normalized(text))):
        for pattern in _COMPILED:
            if match := pattern.search(form):
                return (match[match.lastindex or 0]).strip()
    return None


def _as_normalized(text: str) -> str:
    """A text as the normalizer of a tokenizer may make it: NFKC, without what nobody sees."""
    if text.isascii():
        return text
    try:
        return unicodedata.normalize("NFKC", composed(_UNSEEN.sub("", text)))
    except Unreadable:  # too many marks on one letter: composing it would take minutes
        return text


def answer_fault(task: Task, answer: str) -> str | None:
    """What an answer holds that no model may learn to write; None where there is nothing.

    In JSON the texts and keys are judged as well, as their reader sees them: there a line break is written as
    two characters, and any other character may be.
    """
    for part in _parts(task, answer):
        if mark := marker_in(part):
            return f"{mark[:60]!r} is a mark of chat models, which no model must learn to write"
        if part is answer and (fault := text_fault(part)):
            return f"the text {fault}"
        if found := no_text_in(part):
            return f"a text inside holds {found}, which is no text"
        try:
            composed(part)
        except Unreadable as fault:
            return f"a text inside has {fault.what}"
    return None


def _parts(task: Task, answer: str) -> Iterator[str]:
    yield answer
    if task.kind == "json":
        try:
            yield from (text for _, text in texts_in(strict_json(answer)))
        except Unreadable:  # which the schema's check says
            return
