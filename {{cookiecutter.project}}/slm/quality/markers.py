"""Marks that chat models put around what they say: control sequences, tags of roles, of thoughts and of tool
calls.

No answer that a model learns from holds any of them, or it learns to write them.
"""

import re

_THOUGHT = r"(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|seed:think)"
THOUGHT_OPENS = re.compile(
    rf"(?i:<\s*{_THOUGHT}(?:\s[^<>]{{0,80}})?/?>|◁\s*{_THOUGHT}\s*▷)|\[THINK\]|<\|begin_of_thought\|>"
)
THOUGHT_CLOSES = re.compile(
    rf"(?i:<\s*/\s*{_THOUGHT}\s*>|◁\s*/\s*{_THOUGHT}\s*▷)|\[/THINK\]|<\|end_of_thought\|>"
)
# What each mark is for, and its pattern.
MARKERS = {
    "thoughts": f"{THOUGHT_OPENS.pattern}|{THOUGHT_CLOSES.pattern}",
    # <|im_end|>, <|assistant|>, <｜Assistant｜> of DeepSeek; <|turn> and <turn|> of Gemma
    "control sequence": r"<[|｜][^\s<>|｜]{1,40}[|｜]>"
    r"|(?i:<\|(?:turn|channel|think|tool|tool_call|tool_response)>"
    r"|<(?:turn|channel|think|tool|tool_call|tool_response)\|>)",
    "turn": r"(?i:</?(?:start_of_turn|end_of_turn|end_of_utterance|end_of_text|bos|eos|pad|unk)>"
    r"|<extra_id_\d{1,3}>)",
    # HTML strikes text out between the same two: one of them alone is a model's
    "sentence": r"\A\s*<s>(?!(?s:.)*</s>)|\A(?!(?s:.)*<s>)(?s:.)*?(</s>)\s*\Z",
    "role": r"(?i:\[/?INST\]|<</?SYS>>)|\[/?SYSTEM_PROMPT\]"
    r"|(?im:^[ \t]*###[ \t]*(?:assistant|user|human|system|instruction|response)[ \t]*:)",
    "tool call": r"(?i:</?(?:tool_calls?|tool_response|function_calls?)>)"
    r"|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
}
_COMPILED = [re.compile(pattern) for pattern in MARKERS.values()]


def marker_in(text: str) -> str | None:
    """The first mark of a chat model in a text, as it stands there; None where there is none."""
    for pattern in _COMPILED:
        if match := pattern.search(text):
            return (match[match.lastindex or 0]).strip()
    return None
