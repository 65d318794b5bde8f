"""A server that sends our key back, in each form that it can be given: no file and no output holds it.

Attacks and their honest twins: `pytest -m attack` plants a form of the key, `-m twin` what only looks alike.
"""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from test_asking import TASK, ask, settings, written
from test_synthesize import point_to
from test_synthesize import project as project

from pipeline import synthesize
from slm.config.synthesis import Synthesize
from slm.errors import UserError
from slm.files import read_jsonl
from slm.teacher.auth import secrets_of_environment
from slm.teacher.endpoint import requests_of
from slm.teacher.redaction import REDACTED, Secrets

ROOT = Path(__file__).parent.parent
KEY = "sk-planted-0123456789"
# Base64 writes these with the characters in which its two alphabets differ.
ODD = "Zk~?>~v/?+x~==Q7\\y>>?planted"


def escaped(how: str, key: str) -> str:
    return "".join(how.format(ord(c)) for c in key)


def wrapped(key: str, by: str, width: int = 5) -> str:
    return by.join(key[i : i + width] for i in range(0, len(key), width))


def encoded(before: str, key: str, url: bool = False) -> str:
    return (base64.urlsafe_b64encode if url else base64.b64encode)((before + key).encode()).decode()


FORMS: dict[str, Callable[[str], str]] = {
    "whole": lambda k: k,
    "upper case": str.upper,
    "lower case": str.lower,
    "URL-encoded": lambda k: quote(k, safe=""),
    "URL-encoded, each character": lambda k: escaped("%{:02X}", k),
    "URL-encoded twice": lambda k: escaped("%25{:02x}", k),
    **{
        f"base64, {'URL' if url else 'standard'} alphabet, after {before!r}": (
            lambda k, before=before, url=url: encoded(before, k, url)
        )
        for url in (False, True)
        for before in ("", "Bearer ", "xBearer ", "xxBearer ")
    },
    "base64 of a beginning": lambda k: encoded("", k[:12]),
    "base64 of an end": lambda k: encoded("", k[-12:]),
    "base64 over lines, after 'Bearer '": lambda k: wrapped(encoded("Bearer ", k), "\n"),
    "a beginning": lambda k: k[:8],
    "a longer beginning": lambda k: k[:-2],
    "an end": lambda k: k[-8:],
    "both ends cut": lambda k: k[1:-1],
    "JSON escapes": lambda k: escaped("\\u{:04x}", k),
    "JSON escapes twice": lambda k: escaped("\\\\u{:04X}", k),
    "string escapes": lambda k: escaped("\\x{:02x}", k),
    "HTML": lambda k: escaped("&#{};", k),
    "HTML, hexadecimal": lambda k: escaped("&#x{:x};", k),
    "hexadecimal": lambda k: k.encode().hex(),
    "hexadecimal, upper case": lambda k: k.encode().hex().upper(),
    "reversed": lambda k: k[::-1],
    "reversed over lines": lambda k: wrapped(k[::-1], "\r\n  "),
    "over lines": lambda k: wrapped(k, "\n"),
    "over escaped lines": lambda k: wrapped(k, "\\n"),
    "invisible characters": lambda k: wrapped(k, "\u200b", 1),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    monkeypatch.setattr("slm.teacher.client.LONGEST_WAIT", 0.02)
    monkeypatch.setattr("slm.teacher.batch_client.LONGEST_PAUSE", 0.02)


def redacted(value: Any, *secrets: str) -> Any:
    known = Secrets()
    for secret in secrets:
        known.add(secret)
    return known.redacted(value)


def no_trace(held: str | bytes, forms: dict[str, Callable[[str], str]] = FORMS) -> None:
    """Not even eight characters of the key, in any of the forms, whatever became of their case."""
    text = (held if isinstance(held, str) else held.decode("utf-8", "replace")).lower()
    for name, form in forms.items():
        for written_as in (form(KEY), json.dumps(form(KEY))[1:-1]):
            for part in (written_as, written_as[4 : 4 + len(written_as) // 2]):
                assert len(part) < 8 or part.lower() not in text, name


def leaks(form: str, planted: str, shown: str) -> bool:
    """Whether six characters of a form are left. Base64 of the words before the key is none of it."""
    rest = shown.replace(REDACTED, "\0").lower()
    start = 14 if form.startswith("base64") and "Bearer" in form else 0
    return any(planted[i : i + 6].lower() in rest for i in range(start, len(planted) - 5))


@pytest.mark.attack
@pytest.mark.parametrize("key", [KEY, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_the_key_is_left(form: str, key: str):
    planted = FORMS[form](key)
    for text in (planted, f"your key ({planted}) is wrong", f"key={planted}&x=1", json.dumps({"k": planted})):
        shown = redacted(text, key)
        assert REDACTED in shown and not leaks(form, planted, shown), shown


@pytest.mark.attack
def test_no_form_in_an_answer_is_kept_or_shown(tmp_path: Path, serve, capfd):
    text = " ; ".join(form(KEY) for form in FORMS.values())
    answers, _ = ask(tmp_path, serve("--answer", text).url, count=2, response_format="none")
    assert all(a and a["key_sent_back"] for a in answers)
    no_trace(written(tmp_path) + "".join(capfd.readouterr()).encode() + json.dumps(answers).encode())


@pytest.mark.attack
def test_no_form_in_a_refusal_is_kept_or_shown(tmp_path: Path, serve, capfd):
    words = [f"no: {form(KEY)}" for form in FORMS.values()]
    server = serve("--complaints", json.dumps(words), "--always", "400", faults=["ok"])
    _, failures = ask(tmp_path, server.url, count=len(words) + 1, concurrency=1, response_format="none")
    assert len(failures) == len(words)
    no_trace("\n".join(failures.values()) + "".join(capfd.readouterr()))
    no_trace(written(tmp_path))


@pytest.mark.attack
@pytest.mark.parametrize("fault", ["all_refused", "partly", "expired", "failed"])
def test_no_form_in_a_batch_is_kept_or_shown(tmp_path: Path, serve, capfd, fault: str):
    words = [f"no: {form(KEY)}" for form in FORMS.values()]
    server = serve("--complaints", json.dumps(words), "--batch-faults", json.dumps([fault]))
    count, said = 2 * len(words), ""
    try:
        _, failures = ask(tmp_path, server.url, count=count, batch=True, response_format="none")
        said = "\n".join(failures.values())
    except UserError as error:
        said = str(error)
    assert REDACTED in said
    no_trace(said + "".join(capfd.readouterr()))
    no_trace(written(tmp_path))


@pytest.mark.attack
@pytest.mark.parametrize("fault", ["key_twice", "key_as_ending"])
def test_what_is_no_answer_shows_no_key(tmp_path: Path, serve, capfd, fault: str):
    """The key as a name of the reply that stands twice, or as how the answer ended."""
    _, failures = ask(tmp_path, serve("--always", fault).url, count=1, attempts=1)
    (why,) = failures.values()
    assert REDACTED in why
    no_trace(why + "".join(capfd.readouterr()))
    no_trace(written(tmp_path))


@pytest.mark.attack
@pytest.mark.parametrize("fault", ["401", "402", "404", "413", "422", "429_day", "500", "503"])
@pytest.mark.parametrize("form", ["JSON escapes", "base64 over lines, after 'Bearer '"])
def test_no_kind_of_error_shows_the_key(tmp_path: Path, serve, capfd, fault: str, form: str):
    server = serve("--complaints", json.dumps([FORMS[form](KEY)]), "--always", fault)
    with pytest.raises(UserError) as caught:
        ask(tmp_path, server.url, count=12, attempts=1, patience_s=0.2, response_format="none")
    no_trace(str(caught.value) + "".join(capfd.readouterr()))
    no_trace(written(tmp_path))


@pytest.mark.attack
def test_a_model_named_after_the_key_is_not_written(tmp_path: Path, serve, capfd):
    answers, _ = ask(tmp_path, serve("--model", f"m-{KEY[::-1]}").url, count=1)
    assert answers[0] and answers[0]["model"] == f"m-{REDACTED}"
    no_trace(written(tmp_path) + "".join(capfd.readouterr()).encode())


@pytest.mark.attack
@pytest.mark.parametrize("form", ["whole", "reversed", "hexadecimal"])
def test_a_batch_named_after_the_key_stops_the_run(tmp_path: Path, serve, capfd, form: str):
    name = FORMS[form](KEY)
    with pytest.raises(UserError, match="names a file or a batch after your key") as caught:
        ask(tmp_path, serve("--identifier", name).url, count=2, batch=True, response_format="none")
    no_trace(str(caught.value) + "".join(capfd.readouterr()))
    no_trace(written(tmp_path))


@pytest.mark.attack
def test_a_key_that_the_tokens_spell_is_not_kept(tmp_path: Path, serve):
    """The server's tokens are of four characters: none of them holds the key, and together they do."""
    answers, _ = ask(tmp_path, serve("--answer", f"it is {KEY}").url, count=1, top_logprobs=0)
    assert answers[0] and "logprobs" not in answers[0] and answers[0]["text"] == f"it is {REDACTED}"


@pytest.mark.twin
def test_log_probabilities_of_another_answer_stay(tmp_path: Path, serve):
    answers, _ = ask(tmp_path, serve("--answer", "it is sk-other").url, count=1, top_logprobs=0)
    assert answers[0] and "".join(t[0] for t in answers[0]["logprobs"]) == "it is sk-other"


@pytest.mark.attack
def test_the_stage_writes_no_form_of_the_key(project: Path, serve, capfd, monkeypatch):
    monkeypatch.setenv("PLANTED_KEY", KEY)
    server = serve("--answer", " ; ".join(form(KEY) for form in FORMS.values()))
    point_to(server)
    synthesize.main()
    rows = read_jsonl(synthesize.RECORDS)
    assert rows and all(row["dropped"] for row in rows)
    no_trace(written(project) + "".join(capfd.readouterr()).encode())


@pytest.mark.attack
@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYPLANTEDKEY"),
        ("AWS_ACCESS_KEY_ID", "AKIA0PLANTED0KEY0000"),
        ("AWS_SESSION_TOKEN", "FwoGZXIvYXdzE0planted"),
        ("AZURE_CLIENT_SECRET", "8Q~planted.secret~of-azure0"),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=cGxhbnRlZC1rZXk0Nw==;Suffix=x"),
        ("AZURE_OPENAI_API_KEY", "0123456789abcdef0123planted"),
        ("HF_TOKEN", "hf_planted0123456789"),
        ("MY_OWN_PASSWORD", "planted-pass-47"),
    ],
)
def test_other_secrets_of_the_environment_are_not_kept(
    tmp_path: Path, serve, monkeypatch, name: str, secret: str
):
    monkeypatch.setenv(name, secret)
    planted = f"{secret} {encoded('', secret)} {secret[::-1]} {secret[:12]}"
    answers, _ = ask(tmp_path, serve("--answer", planted).url, count=1)
    assert answers[0] and answers[0]["text"]
    assert len(answers[0]["text"].replace(REDACTED, "").strip(" =")) < 2
    assert secret.encode() not in written(tmp_path)


@pytest.mark.twin
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSH_KEY", str(ROOT)),
        ("SORT_KEY", "kitchen-light"),
        ("ROOM", "kitchen-4711"),
        ("TOKEN", "room 4 light"),
    ],
)
def test_a_variable_that_holds_no_secret_hides_nothing(monkeypatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    assert value not in secrets_of_environment()


# What servers without keys are given, as their manuals say; and keys as services make them.
NO_KEYS = ["none", "EMPTY", "ollama", "x", "sk-no-key-required"]
KEYS = [*NO_KEYS, KEY, ODD, "sk-proj-4Zq0-8KdPw2", "hf_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3"]


@pytest.mark.twin
@pytest.mark.parametrize("key", KEYS)
def test_the_tasks_own_texts_stay_as_they_are(key: str):
    rows = [row for path in sorted((ROOT / "task").glob("*.jsonl")) for row in read_jsonl(path)]
    assert len(rows) > 100
    assert redacted(rows, key) == rows


@pytest.mark.twin
@pytest.mark.parametrize(
    "text",
    [
        "keys begin with sk-",
        KEY[:7],
        KEY[-7:],
        KEY[5:12],
        "sk-plan ted-0123",
        "sk-other-0123456",
        "012345678",
        encoded("Bearer ", "another-key-of-mine"),
        "Bearer ",
        b"another".hex(),
        "100%25 off\\n \\u00e9 &#233; caf%C3%A9",
        "a\nb\r\n c\u200bd",
        "[the key]",
        "",
    ],
)
def test_what_only_looks_alike_stays(text: str):
    assert redacted(text, KEY) == text


@pytest.mark.twin
@pytest.mark.parametrize("key", ["none", "EMPTY"])
def test_a_server_without_keys_may_answer_none(tmp_path: Path, serve, monkeypatch, key: str):
    monkeypatch.setenv("PLANTED_KEY", key)
    answer = '{"name":"none","arguments":{"note":"EMPTY"}}'
    answers, _ = ask(tmp_path, serve("--answer", answer).url, count=1)
    assert answers[0] and answers[0]["text"] == answer and not answers[0]["key_sent_back"]


@pytest.mark.attack
def test_a_short_key_is_known_as_a_word():
    assert redacted("key AB12-x, not ab12-xy or cab12-x", "ab12-x") == (
        f"key {REDACTED}, not ab12-xy or cab12-x"
    )


@pytest.mark.attack
@pytest.mark.parametrize("text", [" ", "\\", "\n", " \n", "%25", "&#0", "\\u00", "sk-plant", "0", "x"])
def test_no_text_makes_it_slow(text: str):
    start = time.perf_counter()
    redacted(text * 100_000, KEY)
    assert time.perf_counter() - start < 5


# Where the key is sent


def addressed(base_url: str, teacher: str = "endpoint", **endpoint: Any) -> Synthesize:
    chosen = settings("http://127.0.0.1").model_dump()
    chosen["endpoint"] |= {"base_url": base_url} | endpoint
    return Synthesize.model_validate(chosen | {"teacher": teacher})


@pytest.mark.attack
@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/v1",
        "http://192.168.1.7:8000/v1",
        "http://10.0.0.2/v1",
        "http://[fe80::1]/v1",
        "http://my-gpu:8000/v1",
        "http://127.0.0.1.example.org/v1",
        "http://localhost.example.org/v1",
        "http://127.0.0.1\\example.org/v1",
        "http://0.0.0.0:8000/v1",
        "http://[::]:8000/v1",
    ],
)
def test_a_key_over_plain_http_is_refused(address: str):
    with pytest.raises(ValueError, match="your key would travel unencrypted; write https://, or set"):
        addressed(address)


@pytest.mark.twin
@pytest.mark.parametrize(
    ("address", "more"),
    [
        ("http://127.0.0.1:8000/v1", {}),
        ("http://127.8.9.1/v1", {}),
        ("http://localhost:11434/v1", {}),
        ("http://[::1]:8000/v1", {}),
        ("https://192.168.1.7/v1", {}),
        ("https://api.deepseek.com/v1", {}),
        ("http://192.168.1.7:8000/v1", {"allow_http": True}),
        ("http://192.168.1.7:8000/v1", {"teacher": "local"}),
    ],
)
def test_this_machine_https_and_what_was_allowed_are_taken(address: str, more: dict[str, Any]):
    assert addressed(address, **more).endpoint.base_url == address


@pytest.mark.attack
@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
def test_a_redirect_takes_the_key_nowhere(tmp_path: Path, serve, status: str, batch: bool):
    other = serve()
    server = serve("--always", status, "--elsewhere", f"{other.url}/v1/chat/completions")
    with pytest.raises(UserError, match="redirects elsewhere"):
        ask(tmp_path, server.url, count=1, batch=batch, response_format="none")
    assert (other.stats()["asked"], other.stats()["keys"]) == (0, 0)


def test_requests_hold_no_key():
    assert KEY not in json.dumps(requests_of(settings("http://127.0.0.1"), TASK, [[]]))
