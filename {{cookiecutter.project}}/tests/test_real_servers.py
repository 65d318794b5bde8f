"""What real servers send beside the plain form: read for what it is, or named with its cause and remedy.

All of it goes through the real client, and once more through the files of a batch.
"""

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from teacher_server import ODD, REFUSAL
from test_asking import KEY, TASK, ask, prompts, quick, settings, written
from test_filters import OFF

from slm.config.synthesis import Filters
from slm.errors import UserError
from slm.task.definition import Task
from slm.task.records import Record
from slm.teacher.budget import NOTHING_SPENT, Budget, worst_case
from slm.teacher.client import Teacher
from slm.teacher.endpoint import EndpointTeacher, requests_of
from slm.teacher.filters import Sieve
from slm.teacher.response import NotAnAnswer, broke_off, ending_of, read_reply, understood
from slm.teacher.server_errors import complaint_inside, complaint_of
from slm.teacher.store import Store

quick = quick  # a key, and short waits
TEXT = Task(name="t", kind="text", instruction="Answer.")
LABEL = Task(name="t", kind="label", instruction="Label.", labels=["light", "timer"])
REASONING = Task(name="t", kind="reasoning", instruction="Reckon.")
CALL = '{"name":"none","arguments":{}}'


def learnt(
    folder: Path, url: str, task: Task = TASK, refusal: bool = False, count: int = 1, **endpoint: Any
) -> list[tuple[str, str | None]]:
    """(text, why it is dropped) of each answer, with every filter off that has a switch."""
    chosen, store = settings(url, **endpoint), Store(folder / "answers.sqlite")
    sieve = Sieve(task, Filters.model_validate(OFF | {"refusal": refusal}), chosen.max_new_tokens, [])
    try:
        found = []
        for asked, (answer, why) in zip(
            prompts(count), EndpointTeacher(chosen, task, store).answers(prompts(count)), strict=True
        ):
            text = (answer or {}).get("text", "")
            found.append((text, sieve.reason(Record("p", asked), answer, text, why)))
        return found
    finally:
        store.close()


def good(url: str, folder: Path, **endpoint: Any) -> str:
    ((text, dropped),) = learnt(folder / "good", url, **endpoint)
    assert dropped is None
    return text


ENDED_OTHERWISE = ("ended_safety", "ended_model_length", "ended_by_number", "ended_mute")
KEPT = [
    *("think", "think_twice", "thinking", "think_kimi", "think_mistral", "think_unopened", "think_fenced"),
    *("reasoning_beside", "blanks", "call", "call_stop", "call_object", "call_with_words"),
    *(name for name in ODD if name.startswith("ended_") and name not in ENDED_OTHERWISE),
    *("error_of_nothing", "error_of_success", "error_code_zero", "refusal_false"),
]
# Only a reply of its own has these; a batch's file is JSON throughout.
KEPT_ALONE = ["byte_order_mark", "kept_alive", "fenced_capitals", "fenced_tildes"]


@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
@pytest.mark.parametrize("fault", KEPT)
def test_a_good_answer_in_another_form_is_kept(tmp_path: Path, serve, fault: str, batch: bool):
    flags = ("--batch-faults", json.dumps([fault])) if batch else ("--always", fault)
    server = serve(*flags)
    form = {"response_format": "none", "batch": batch}
    assert learnt(tmp_path, server.url, **form) == [
        (good(serve().url, tmp_path, response_format="none"), None)
    ]


@pytest.mark.parametrize("fault", KEPT_ALONE)
def test_a_good_answer_behind_what_is_no_json_is_kept(tmp_path: Path, serve, fault: str):
    ((text, dropped),) = learnt(tmp_path, serve("--always", fault).url, response_format="none")
    assert dropped is None and text == good(serve().url, tmp_path, response_format="none")


@pytest.mark.parametrize("fault", ["parts", "call_bare", "call_first_form"])
def test_an_answer_in_parts_or_as_a_bare_call_is_put_together(tmp_path: Path, serve, fault: str):
    assert learnt(tmp_path, serve("--always", fault).url) == [(CALL, None)]


DROPPED = {
    "think_alone": "empty: nothing follows its thoughts",
    "think_open": "empty: its thoughts never end: <think>{",
    "think_cut": "cut: off after 50 tokens (synthesize.max_new_tokens) before an answer began",
    "think_after": "control: '<think>' is a mark of chat models",
    "think_inside": "control: '<think>' is a mark of chat models",
    "reasoning_alone": "empty: the server sent thoughts alone",
    "content_null": "empty: the answer is empty",
    "content_empty": "empty: the answer is empty",
    "content_blank": "empty: the answer is empty",
    "parts_empty": "empty: the answer is empty",
    "null_length": "cut: off after 50 tokens (synthesize.max_new_tokens) before an answer began",
    "empty_length": "cut: off after 50 tokens (synthesize.max_new_tokens) before an answer began",
    "ended_safety": "ended: by 'SAFETY' (finish_reason)",
    "filtered": "ended: by 'content_filter' (finish_reason)",
    "tool_call": "ended: the server answered with a tool call (not named)",
    "call_unknown": "ended: the server answered with a tool call ('launch_missiles'), which is no",
    "call_broken": "ended: the server answered with a tool call (",
    "refusal_null": f"empty: the server's own refusal came instead: {REFUSAL}",
    "parts_refusal": f"empty: the server's own refusal came instead: {REFUSAL}",
    "parts_thinking": "empty: the server sent thoughts alone",
    "reasoning_details": "empty: the server sent thoughts alone",
    "ended_model_length": "cut: off after 50 tokens",
    "ended_by_number": "ended: by '1' (finish_reason)",
    "ended_mute": "ended: by 'sensitive' (finish_reason)",
}


@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
@pytest.mark.parametrize("fault", DROPPED)
def test_what_is_no_answer_is_dropped_and_says_why(tmp_path: Path, serve, fault: str, batch: bool):
    flags = ("--batch-faults", json.dumps([fault])) if batch else ("--always", fault)
    ((_, dropped),) = learnt(tmp_path, serve(*flags).url, batch=batch, response_format="none")
    assert dropped and dropped.startswith(DROPPED[fault]) and not dropped.endswith(": "), dropped


def test_parts_that_are_no_text_are_no_answer(tmp_path: Path, serve):
    _, failures = ask(tmp_path, serve("--always", "parts_image").url, count=1)
    (why,) = failures.values()
    assert why.startswith("not an answer: choices.0.message.content.list.0 ")
    assert why.endswith("a part of the content is no text")


@pytest.mark.parametrize(
    ("said", "ending"),
    [
        *((name, "stop") for name in ("EosToken", "<|endoftext|>", "stop_word", "FinishReason.STOP", "</s>")),
        *((name, "stop") for name in ("STOP_SEQUENCE", "end-turn", "FINISH_REASON_STOP", "<|im_end|>", None)),
        *((name, "length") for name in ("model_length", "model_context_window_exceeded", "MaxTokens")),
        *((name, "length") for name in ("context_length_exceeded", "max-tokens", "FinishReason.MAX_TOKENS")),
        *((name, "tool_calls") for name in ("tool_use", "ToolCalls", "function_call")),
        *(
            (name, name)
            for name in ("content_filter", "SAFETY", "sensitive", "正常", "error", "stopped_by_us")
        ),
    ],
)
def test_an_ending_is_read_however_it_is_written(said: str | None, ending: str):
    assert ending_of(said) == ending


@pytest.mark.parametrize("reason", ["insufficient_system_resource", "abort", "error", "ERROR"])
def test_an_answer_that_was_broken_off_is_asked_again(tmp_path: Path, serve, reason: str):
    assert broke_off(reason) and not broke_off("content_filter") and not broke_off("stop")
    server = serve(faults=["finish_unknown"])
    answers, failures = ask(tmp_path, server.url)
    assert not failures and all(answers) and server.stats()["asked"] == 9
    _, failures = ask(tmp_path / "never", serve("--always", "finish_unknown").url, count=1)
    assert list(failures.values()) == ["the server broke off its answer (finish_reason 'error')"]


def test_the_switch_is_about_refusals_alone(tmp_path: Path, serve):
    for fault in ("refusal", "refusal_field"):
        for on in (True, False):
            ((_, dropped),) = learnt(tmp_path / f"{fault}-{on}", serve("--always", fault).url, TEXT, on)
            assert (dropped or "").startswith("refusal: ") == on
    ((_, dropped),) = learnt(tmp_path / "null", serve("--always", "refusal_null").url, TEXT, True)
    assert dropped == f"refusal: the server's own refusal: {REFUSAL}"


@pytest.mark.parametrize(
    ("task", "said", "text"),
    [
        (TEXT, "<think>hm</think>\n\nIt rains.\n \n", "It rains."),
        (TEXT, "\n\nIt rains.\n\nAnd it is cold. ", "It rains.\n\nAnd it is cold."),
        (LABEL, "<think>a light?</think>\n\nlight\n", "light"),
        (REASONING, "<think>hm</think>\n3 x 4 = 12\nAnswer: 12\n", "3 x 4 = 12\nAnswer: 12"),
        (REASONING, "hm</think>3 x 4 = 12\nAnswer: 12", "3 x 4 = 12\nAnswer: 12"),
    ],
)
def test_thoughts_and_blanks_are_not_learnt_by_any_kind_of_task(
    tmp_path: Path, serve, task: Task, said: str, text: str
):
    assert learnt(tmp_path, serve("--answer", said).url, task) == [(text, None)]


@pytest.mark.parametrize("task", [TEXT, LABEL, REASONING, TASK], ids=lambda task: task.kind)
@pytest.mark.parametrize("mark", ["<|im_end|>", "\n### Assistant: hi", "<think>hm</think>", "</s>"])
def test_one_filter_finds_marks_for_every_kind_of_task(tmp_path: Path, serve, task: Task, mark: str):
    answers = {"json": CALL, "label": "light", "text": "It rains.", "reasoning": "3 x 4 = 12\nAnswer: 12"}
    ((_, dropped),) = learnt(tmp_path, serve("--answer", answers[task.kind] + mark).url, task)
    assert dropped and dropped.startswith("control: ") and "is a mark of chat models" in dropped


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("It\r\nrains.", "It\nrains."),
        ("cafe\u0301", "café"),
        ("a\x9fb", None),
        ("a\rb", None),
        ("a\ufffeb", None),
        ("\u202e", None),
        ("a" + "\u0301\u0323" * 40_000, None),
    ],
)
def test_a_teachers_text_is_read_as_data_is(tmp_path: Path, serve, said: str, text: str | None):
    start = time.perf_counter()
    endpoint = settings(serve().url)
    reply = {"text": said, "cut": False, "finish_reason": "stop", "refusal": None, "key_sent_back": False}
    store = Store(tmp_path / "answers.sqlite")
    try:
        got = EndpointTeacher(endpoint, TEXT, store)._read(understood(reply))["text"]
    finally:
        store.close()
    sieve = Sieve(TEXT, Filters.model_validate(OFF), endpoint.max_new_tokens, [])
    dropped = sieve.reason(Record("p", prompts(1)[0]), reply, got)
    assert (dropped or "").startswith("control: ") == (text is None) and got == (text or got)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (
            '{"name":"none","arguments":{"caf\\u0065\\u0301":"e\\u0301"}}',
            '{"name":"none","arguments":{"café":"é"}}',
        ),
        ('{"name":"none","arguments":{"a":"\\u0000"}}', None),
        ('{"name":"none","arguments":{"\\u009f":1}}', None),
        ('{"name":"none","arguments":{"a":"\\r"}}', None),
    ],
)
def test_a_teachers_json_is_read_as_data_is(tmp_path: Path, serve, said: str, text: str | None):
    ((got, dropped),) = learnt(tmp_path, serve("--answer", said).url)
    assert (dropped or "").startswith("control: ") == (text is None) and got == (text or got)


def test_a_reply_that_says_a_thing_twice_is_no_answer():
    honest = b'{"choices": [{"message": {"content": "one"}, "finish_reason": "stop"}], "model": "big"}'
    assert read_reply(honest, "big")["text"] == "one"
    for old, new in (
        (b'"content": "one"', b'"content": "one", "content": "two"'),
        (b'"model": "big"', b'"model": "big", "model": "small"'),
        (b'"model": "big"', b'"usage": null, "\\u0075sage": null'),
    ):
        with pytest.raises(NotAnAnswer, match="stands twice"):
            read_reply(honest.replace(old, new), "big")


CALLED = '{"name":"set_light","arguments":{"room":"café"}}'


def turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in said]


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        (turns(("user", "a"), ("assistant", CALLED), ("tool", "done")), "user assistant tool"),
        (
            turns(("user", "a"), ("assistant", f"[{CALLED},{CALLED}]"), ("tool", "1"), ("tool", "2")),
            "user assistant tool tool",
        ),
        (turns(("user", "a"), ("assistant", "I look."), ("tool", "done")), "user assistant user"),
        (
            turns(("user", "a"), ("assistant", CALLED), ("tool", "1"), ("tool", "2")),
            "user assistant user user",
        ),
        (turns(("user", "a"), ("tool", "done")), "user user"),
        (turns(("user", "a"), ("assistant", CALLED), ("user", "b")), "user assistant user"),
        (
            turns(
                *(("user", "a"), ("assistant", CALLED), ("tool", "1")),
                *(("assistant", "ok"), ("user", "b"), ("assistant", CALLED), ("tool", "2")),
            ),
            "user assistant tool assistant user assistant tool",
        ),
    ],
)
@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
def test_a_conversation_with_tools_can_be_asked(tmp_path: Path, serve, messages, roles: str, batch: bool):
    chosen, store = settings(serve().url, batch=batch), Store(tmp_path / "answers.sqlite")
    try:
        ((answer, why),) = EndpointTeacher(chosen, TASK, store).answers([messages])
    finally:
        store.close()
    assert answer and not why
    ((_, request),) = requests_of(chosen, TASK, [messages])
    sent = request["messages"][1:]
    assert " ".join(m["role"] for m in sent) == roles
    ids = [call["id"] for m in sent for call in m.get("tool_calls", [])]
    assert len(set(ids)) == len(ids) and ids == [m["tool_call_id"] for m in sent if m["role"] == "tool"]
    assert [m["content"] for m in sent if m.get("content")] == [
        m["content"] for m, s in zip(messages, sent, strict=True) if not s.get("tool_calls")
    ]


def test_a_quoted_tag_is_not_the_end_of_thoughts():
    reply = {"text": "Close it with `</think>` at the end.", "cut": False, "finish_reason": "stop"}
    assert understood(reply)["text"] == reply["text"]


def test_a_rationale_is_told_from_thoughts(tmp_path: Path, serve):
    said = f"<think>hm</think>They name nothing.\nANSWER: {CALL}"
    server = serve("--answer", said)
    assert learnt(tmp_path, server.url, rationale=True, response_format="none") == [(CALL, None)]


def test_a_tool_call_is_no_answer_of_another_kind(tmp_path: Path, serve):
    ((_, dropped),) = learnt(tmp_path, serve("--always", "call").url, TEXT)
    assert dropped and dropped.startswith("ended: the server answered with a tool call ('")
    listed = Task(name="t", kind="json", instruction="i", answer_schema={"type": "array"})
    ((text, dropped),) = learnt(tmp_path / "list", serve("--always", "call_bare").url, listed)
    assert (text, dropped) == (f"[{CALL}]", None)


def test_what_was_stored_by_an_earlier_version_is_read_in_the_same_way(tmp_path: Path, serve):
    chosen, store = settings("http://127.0.0.1:9"), Store(tmp_path / "answers.sqlite")
    ((key, _),) = requests_of(chosen, TASK, prompts(1))
    old = {
        "text": f"<think>hm</think>\n{CALL}\n",
        "cut": False,
        "finish_reason": "eos_token",
        "refusal": None,
    }
    old |= {"model": "big", "request_id": None, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    store.put({key: old | {"usd": 0.0, "seconds": 1.0, "key_sent_back": False}})
    store.close()
    assert learnt(tmp_path, "http://127.0.0.1:9") == [(CALL, None)]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("error_quota", "no credit .402: You exceeded your quota.*top it up"),
        ("error_key", "401: Incorrect API key.*export a valid key"),
        ("error_number", "in a row got no answer, the last: 504: upstream timed out"),
        ("error_detail", "in a row got no answer, the last: 500: the model is loading"),
        ("error_invalid", "in a row got no answer, the last: refused with 400: your prompt is too long"),
        ("error_in_choice", "in a row got no answer, the last: 502: it broke"),
    ],
)
def test_an_error_with_status_200_stops_the_run_as_one_with_its_own_status(
    tmp_path: Path, serve, fault: str, says: str
):
    with pytest.raises(UserError, match=says):
        ask(tmp_path, serve("--always", fault).url, count=12, response_format="none")


@pytest.mark.parametrize(
    "fault", ["error_text", "error_rate", "error_number", "error_in_choice", "error_in_200"]
)
def test_an_error_that_passes_is_asked_again(tmp_path: Path, serve, fault: str):
    server = serve(faults=["ok", fault, fault, "ok"])
    answers, failures = ask(tmp_path, server.url)
    assert not failures and all(answers) and server.stats()["asked"] == 10


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"error": {"message": "Incorrect API key provided: sk-pl***6789."}}, 401, "key provided: […]"),
        ({"error": {"message": "quota exceeded", "type": "insufficient_quota"}}, 402, "quota exceeded"),
        ({"error": {"message": "slow down", "code": "429"}}, 429, "slow down"),
        ({"error": {"message": {"text": "odd"}}}, 500, '{"text": "odd"}'),
        ({"errors": [{"message": "The model `x` does not exist"}]}, 404, "does not exist"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}]}, 500, "body.seed: not permitted"),
        ("Service Unavailable", 503, "Service Unavailable"),
        (None, 500, "no reason given"),
        ({"error": {"code": 99999999999999999999, "message": "x"}}, 500, "x"),
        ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, 402, "insufficient bal"),
        ({"error_code": 110, "error_msg": "Access token invalid or no longer valid"}, 401, "Access token"),
        (
            {"error_code": 336003, "error_msg": "the max length of the question is 4800"},
            500,
            "the max length",
        ),
        ({"code": 500, "msg": "404 NOT_FOUND", "success": False}, 500, "404 NOT_FOUND"),
        ({"error_message": "too many requests"}, 429, "too many requests"),
        ({"code": "DataInspectionFailed", "message": "Input may be inappropriate."}, 400, "Input may"),
        ({"error": {"message": "Content Exists Risk"}}, 400, "Content Exists Risk"),
        ({"error": "rejected as a result of our safety system"}, 400, "safety system"),
    ],
)
def test_an_error_says_what_it_is_in_any_form(body: Any, status: int, said: str):
    complaint = complaint_of(body)
    assert complaint.status == status and said in complaint.said and "6789" not in complaint.said


@pytest.mark.parametrize(
    "body",
    [
        {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        {"error_code": 110, "error_msg": "Access token invalid"},
        {"code": 500, "msg": "it broke", "success": False},
        {"success": False},
        {"code": "DataInspectionFailed", "message": "Input may be inappropriate."},
        {"error": {"code": 1301, "message": "x"}, "choices": [{"message": {"content": "a"}}]},
    ],
    ids=str,
)
def test_an_error_in_place_of_an_answer_is_found(body: dict[str, Any]):
    assert complaint_inside(body)


@pytest.mark.parametrize(
    "more",
    [
        {"error": {"code": 0, "message": "ok"}},
        {"error": {"code": 200, "message": "success"}},
        {"error": {"code": "", "message": ""}},
        {"error": None, "detail": None},
        {"message": "ok", "code": 200, "success": True},
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
    ],
    ids=str,
)
def test_a_success_beside_an_answer_is_no_error(more: dict[str, Any]):
    assert complaint_inside({"choices": [{"message": {"content": "a"}}]} | more) is None


@pytest.mark.parametrize(
    ("said", "filtered"),
    [
        ({"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content."}, True),
        ({"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}, True),
        ({"error": {"message": "Your request was rejected as a result of our safety system."}}, True),
        ({"error": {"code": "1301", "message": "系统检测到输入内容可能包含不安全或敏感内容"}}, True),
        ({"error": {"message": "the model is overloaded"}}, False),
        ({"error": {"message": "slow down", "code": 429}}, False),
    ],
)
def test_a_filter_is_known_with_status_200_too(said: dict[str, Any], filtered: bool):
    assert complaint_of(said).filtered is filtered


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            "page",
            r"begins with '<!DOCTYPE html><title>Sign in</title>.*; correct synthesize.endpoint.base_url",
        ),
        ("truncated", r"the last: not an answer: invalid JSON: EOF while parsing[^;]*; answers so far"),
        ("proxy", r"begins with .upstream connect error or disconnect.*.; answers so far"),
        ("stream_error", "the last: 503: model overloaded"),
    ],
)
def test_the_words_of_what_is_no_json_are_quoted(tmp_path: Path, serve, capfd, fault: str, says: str):
    chosen = {"patience_s": 1} if fault == "stream_error" else {}
    with pytest.raises(UserError, match=says) as caught:
        ask(tmp_path, serve("--always", fault).url, count=12, **chosen)
    assert KEY[:10] not in str(caught.value) and KEY not in "".join(capfd.readouterr())


def test_the_words_behind_a_wait_are_quoted(tmp_path: Path, serve):
    with pytest.raises(
        UserError, match="keeps all requests waiting, the last: 429: ordered 429_day; has not"
    ):
        ask(tmp_path, serve("--always", "429_day").url)


def test_the_key_in_an_error_goes_no_further(tmp_path: Path, serve, capfd):
    _, failures = ask(tmp_path, serve("--always", "error_object").url, count=1)
    (why,) = failures.values()
    assert why.startswith("refused with 400: bad [the endpoint's key]")
    assert KEY not in "".join(capfd.readouterr()) and KEY.encode() not in written(tmp_path)


@pytest.mark.parametrize("fault", ["filter_azure", "filter_moderation", "error_filter"])
def test_a_filtered_prompt_is_its_own_failure(tmp_path: Path, serve, capfd, fault: str):
    server = serve(faults=[fault])
    answers, failures = ask(tmp_path, server.url, concurrency=1)
    (why,) = failures.values()
    assert why.startswith("the server's content filter refused this prompt (40")
    assert answers[0] is None and all(a and a["response_format"] for a in answers[1:])
    assert "response_format" not in capfd.readouterr().err and server.stats()["asked"] == 8
    # however many there are, and nothing else yet: it is not how we ask
    _, failures = ask(tmp_path / "all", serve("--always", fault).url, count=12)
    assert len(failures) == 12


def test_a_mute_refusal_leaves_the_format_on_and_names_the_setting(tmp_path: Path, serve):
    _, failures = ask(tmp_path, serve(faults=["400"]).url, concurrency=1)
    (why,) = failures.values()
    assert why == (
        "refused with 400: ordered 400; if it takes no JSON schema, set "
        "synthesize.endpoint.response_format: none"
    )


def test_a_field_of_the_format_is_refused_as_fastapi_does(tmp_path: Path, serve, capfd):
    answers, failures = ask(tmp_path, serve("--always", "no_format_fastapi").url)
    assert not failures and all(a and a["response_format"] is False for a in answers)
    assert "body.response_format: Extra inputs are not permitted" in capfd.readouterr().err


@pytest.mark.parametrize("fault", ["no_max_tokens", "no_max_tokens_azure"])
def test_a_newer_limit_is_used_where_the_server_wants_it(tmp_path: Path, serve, capfd, fault: str):
    server = serve("--always", fault)
    answers, failures = ask(tmp_path, server.url)
    assert not failures and all(a and a["response_format"] for a in answers)
    assert "takes no max_tokens; asking with max_completion_tokens" in capfd.readouterr().err
    server.close()
    assert ask(tmp_path, server.url) == (answers, {})  # under the same keys


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("no_limit_mute", r"does not take max_tokens .*extra: {max_tokens: null, max_completion_tokens: 50}"),
        (
            "no_temperature",
            r"'temperature' does not support 0 .*set synthesize.endpoint.extra: {temperature: null}",
        ),
        ("only_streams", r"answers in streams alone \(This model only support stream mode"),
        ("chunk", r"in pieces.*set synthesize.endpoint.extra: {stream: false}"),
        ("stream", r"in pieces.*set synthesize.endpoint.extra: {stream: false}, or use a server that"),
    ],
)
def test_what_no_request_can_pass_stops_the_run_and_says_what_to_set(
    tmp_path: Path, serve, fault: str, remedy: str
):
    with pytest.raises(UserError, match=remedy):
        ask(tmp_path, serve("--always", fault).url)


MUTE = "if it takes no JSON schema"
# What a server refuses a request with: status and words, what is said, and what is not.
SPOKEN = [
    (400, "This model's maximum context length is 4096 tokens", "refused with 400", MUTE),
    (400, "your prompt is too long", "refused with 400", MUTE),
    (400, "System role not supported", "refused with 400", MUTE),
    (413, "Request Entity Too Large", "refused with 413", MUTE),
    (405, "Method Not Allowed", "refused with 405", MUTE),
    (451, "unavailable for legal reasons", "refused with 451", MUTE),
    (400, "it went wrong", MUTE, "key"),
    (422, "it went wrong", MUTE, "key"),
    (400, "API key not valid. Please pass a valid API key.", "export a valid key", MUTE),
    (400, "Unauthorized", "export a valid key", MUTE),
    (400, "The access token is expired", "export a valid key", MUTE),
    (400, "The model `big` does not exist", "does not know this address or model 'big'", MUTE),
    (400, "big is not a valid model ID", "does not know this address or model 'big'", MUTE),
    (403, "Your project has no access: model not found", "does not know this address or model 'big'", "key"),
    (400, "Insufficient Balance", "has no credit", "key"),
    (403, "insufficient balance (1008)", "has no credit", "export"),
    (403, "the payment is overdue", "has no credit", "export"),
    (403, "You are not allowed to request logprobs from this model", "top_logprobs: null", "export"),
    (403, "no access", "export a valid key", "credit"),
    (401, "no", "export a valid key", "credit"),
    # A schema, a prompt and a field may hold any word
    (400, "Invalid schema for response_format: ('properties', 'payment') lacks balance", "", "credit"),
    (400, "messages.0 names no payment and no api_key", "refused with 400", "credit"),
    (400, "temperature must be in (0, 1], got 0.0", "extra: {temperature: null}", MUTE),
    (400, "Invalid 'temperature': must be greater than 0", "extra: {temperature: null}", MUTE),
    (422, "temperature must be strictly positive", "extra: {temperature: null}", MUTE),
    (400, "max_tokens is too large: 50. It takes at most 40", "set synthesize.max_new_tokens", "null"),
    (400, "max_tokens must be between 1 and 40", "set synthesize.max_new_tokens", "null"),
    (400, "maximum context length is 40, reduce messages or max_tokens, too large", "refused", "set syn"),
    (400, "Non-streaming is not supported; set stream=true", "in streams alone", MUTE),
    (422, "Only `stream: true` is supported for this model", "use a server, or a model", "stream: false"),
    (400, "This model does not support non-streaming calls", "in streams alone", MUTE),
    (400, "enable_thinking must be set to false for non-streaming calls", "{enable_thinking: false}", MUTE),
    (400, "parameter.enable_thinking only support stream call", "{enable_thinking: false}", MUTE),
]


@pytest.mark.parametrize(("status", "words", "says", "hides"), SPOKEN)
def test_a_refusal_names_its_own_remedy(status: int, words: str, says: str, hides: str):
    chosen = settings("https://x", top_logprobs=2)
    ((_, request),) = requests_of(chosen, TASK, prompts(1))
    teacher = Teacher(chosen, Budget(chosen.endpoint, NOTHING_SPENT))
    for body in ({"error": {"message": words}}, {"detail": words}, words):
        error = teacher._refused(complaint_of(body, status), httpx2.Headers(), request, 0.0)
        assert says in str(error) and hides not in str(error).replace(words, ""), error


@pytest.mark.parametrize(
    ("fault", "extra"),
    [
        ("no_limit_mute", {"max_tokens": None, "max_completion_tokens": 50}),
        ("no_max_tokens", {"max_tokens": None}),
        ("no_temperature", {"temperature": None}),
    ],
    ids=str,
)
def test_the_remedy_that_is_named_works(tmp_path: Path, serve, fault: str, extra: dict[str, Any]):
    answers, failures = ask(tmp_path, serve("--always", fault).url, extra=extra)
    assert not failures and all(answers)


def test_a_stream_that_was_asked_for_is_named(tmp_path: Path, serve):
    with pytest.raises(UserError, match=r"take `stream` out of synthesize.endpoint.extra"):
        ask(tmp_path, serve("--always", "stream").url, extra={"stream": True})


def test_without_a_limit_the_budget_reckons_with_the_settings_own(tmp_path: Path, serve):
    chosen = settings("https://x", extra={"max_tokens": None})
    ((_, request),) = requests_of(chosen, TASK, prompts(1))
    assert "max_tokens" not in request and worst_case(chosen, request).tokens_out == 50
    limits = {"usd": None, "requests": None, "tokens": 10}
    with pytest.raises(UserError, match="budget is used up"):
        ask(tmp_path, serve().url, extra={"max_tokens": None}, budget=limits)


def test_a_batch_says_what_a_server_does_not_take(tmp_path: Path, serve):
    server = serve("--batch-faults", json.dumps(["error_filter"]))
    with pytest.raises(UserError, match=r"the server's content filter refused this prompt .400: flagged by"):
        ask(tmp_path, server.url, batch=True, response_format="none")
    store = Store(tmp_path / "answers.sqlite")
    assert store.spent().requests == 0
    store.close()
