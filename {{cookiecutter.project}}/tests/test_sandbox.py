"""A program of strangers is shut in: what it may not do fails, what never ends is ended, what it says is
checked.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from slm.errors import UserError
from slm.files import read_json, write_json, write_text
from slm.inference import asking, sandbox
from slm.inference.asking import ask_singly
from slm.inference.genai import Reply
from slm.inference.sandbox import Child, ChildLimits, Kind, chosen_sandbox, container_command
from tests.test_control_tokens import of, pack

ROOT = Path(__file__).parents[1]
LINUX = sys.platform == "linux" and shutil.which("unshare")
KINDS: list[Kind] = ["limits", *(["namespaces"] if LINUX else [])]  # type: ignore[list-item]
SHORT = ChildLimits(start_s=20, line_s=2, whole_s=20, memory_mb=500, processes=40)
READY = "import json, sys; print(json.dumps({'ready': True}), flush=True)\n"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What no program of strangers may learn: a file of mine and a variable of mine."""
    monkeypatch.setenv("GITHUB_TOKEN", "ghs_planted")
    write_text(tmp_path / "mine" / "secret.txt", "ghs_planted")
    return tmp_path / "mine" / "secret.txt"


def said(
    code: str, kind: Kind | None, limits: ChildLimits = SHORT, folders: list[Path] | None = None
) -> object:
    """What a program says once it is ready."""
    with Child(["-c", READY + code], limits, folders or [], kind) as child:
        assert child.hear() == {"ready": True}
        return child.hear()


def failure(code: str, kind: Kind, limits: ChildLimits = SHORT) -> str:
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        said(code, kind, limits)
    assert time.monotonic() - start < 15
    return str(error.value)


def attempt(code: str) -> str:
    """A program that tries something and says how it went."""
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    return (
        f"try:\n{lines}    print(json.dumps('done'))\n"
        "except OSError as e:\n    print(json.dumps(e.strerror))\n"
    )


NEVER_ENDING = {
    "computes without end": ("while True: pass", "no answer in time"),
    "waits without end": ("import time; time.sleep(1000)", "no answer in time"),
    "ignores being told to end": (
        "import signal\nfor s in (1, 2, 13, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "no answer in time",
    ),
    "allocates without end": ("a = []\nwhile True: a.append(bytearray(10**8))", "MemoryError"),
    "says a line without end": ("while True: sys.stdout.write('a' * 10**5)", "bytes at once"),
    "complains without end": ("while True: sys.stderr.write('a' * 10**5)", "no answer in time"),
    "says no JSON": ("print('{', flush=True)\nimport time; time.sleep(9)", "no JSON"),
    "says NaN": ("print('NaN', flush=True)", "no JSON"),
    "says a key twice": ("""print('{"a": 1, "a": 2}', flush=True)""", "no JSON"),
    "says what is too deep": ("print('[' * 10**5, flush=True)", "no JSON"),
    "says nothing": ("pass", "has ended"),
    "crashes": ("import os; os.abort()", "has ended"),
}


@pytest.mark.parametrize("name", NEVER_ENDING)
@pytest.mark.attack
def test_what_never_ends_or_says_nonsense_is_ended_in_seconds(name: str, kind: Kind):
    code, expected = NEVER_ENDING[name]
    assert expected in failure(code, kind)


@pytest.mark.attack
def test_all_lines_together_have_a_time_too(kind: Kind):
    code = "import time\nwhile True: time.sleep(0.3); print(1, flush=True)"
    with (
        Child(["-c", READY + code], ChildLimits(whole_s=3, line_s=2), [], kind) as child,
        pytest.raises(UserError),
    ):
        while True:
            child.hear()


@pytest.mark.attack
def test_what_it_complains_of_is_no_command_to_a_log(kind: Kind):
    code = "sys.stderr.write('::error::a\\n##[add-mask]b ::stop-commands::c \\x1b[31m\\u202e'); sys.exit(1)"
    text = failure(code, kind)
    assert "add-mask" in text and "##[" not in text and text.isprintable()
    assert not text.startswith("::")


@pytest.mark.attack
def test_no_variable_of_mine_is_seen(kind: Kind, secret: Path):
    assert "planted" not in json.dumps(said("import os; print(json.dumps(dict(os.environ)))", kind))


@pytest.mark.attack
def test_nothing_is_written(kind: Kind, secret: Path):
    code = f"open({str(secret.parent / 'left')!r}, 'w').write('a' * 10**5)"
    assert said(attempt(code), kind) != "done"
    assert not (secret.parent / "left").exists() or not (secret.parent / "left").stat().st_size


@pytest.mark.skipif(not LINUX, reason="needs Linux namespaces")
class TestNamespaces:
    @pytest.mark.attack
    def test_no_file_of_mine_is_seen(self, secret: Path):
        for path in (secret, "/etc/passwd", f"/proc/{os.getpid()}", Path(__file__)):
            found = said(attempt(f"import os; os.listdir({str(path)!r})"), "namespaces")
            assert found == "No such file or directory", path
        assert said(attempt(f"import os; os.stat({str(secret)!r})"), "limits") == "done"

    @pytest.mark.attack
    def test_what_it_is_about_is_read_and_not_written(self, secret: Path):
        folders = [secret.parent]
        code = f"print(json.dumps(open({str(secret)!r}).read()))"
        assert said(code, "namespaces", folders=folders) == "ghs_planted"
        for code in (
            f"open({str(secret)!r}, 'w')",
            f"open({str(secret.parent / 'x')!r}, 'w')",
            "open('/x', 'w')",
            "open('/dev/x', 'w')",
            "open('/proc/sys/kernel/core_pattern', 'w')",
            f"import os; os.remove({str(secret)!r})",
        ):
            assert said(attempt(code), "namespaces", folders=folders) != "done", code

    @pytest.mark.attack
    def test_no_network_is_reached(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
            assert said(attempt(code), "namespaces") != "done"
            assert said(attempt(code), "limits") == "done"

    @pytest.mark.attack
    def test_no_process_of_mine_is_seen_and_few_are_made(self):
        code = "import os; print(json.dumps([n for n in os.listdir('/proc') if n.isdigit()]))"
        assert said(code, "namespaces") == ["1"]
        code = "import os, time\ntry:\n  n = 0\n  while n < 500:\n    if os.fork() == 0: time.sleep(9)\n"
        code += "    n += 1\n"
        code += "except OSError: pass\nprint(n, flush=True)"
        found = said(code, "namespaces")
        assert isinstance(found, int) and found < SHORT.processes

    @pytest.mark.attack
    def test_no_right_is_held_and_none_is_won(self):
        code = (
            "print(json.dumps([l.split()[1] for l in open('/proc/self/status') if l[:3] in ('Cap', 'NoN')]))"
        )
        held = said(code, "namespaces")
        assert isinstance(held, list) and [int(word, 16) for word in held] == [0, 0, 0, 0, 0, 1]
        code = "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        code += "print(json.dumps([c.mount(b'none', b'/', b'tmpfs', 0, None), c.chroot(b'/'), c.setuid(0)]))"
        assert said(code, "namespaces") == [-1, -1, -1]

    def test_it_ends_with_who_started_it(self):
        """Whatever it ignores: the kernel ends it."""
        code = "import time; from slm.inference.sandbox import *\n"
        code += "endless = ['-c', 'print(1, flush=True)\\nwhile True: pass']\n"
        code += "child = Child(endless, ChildLimits(), [], 'namespaces')\n"
        code += "print(child.hear(), child._process.pid, flush=True)\ntime.sleep(60)"
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout
            unshare = psutil.Process(int(parent.stdout.readline().split()[1]))
            inside = unshare.children(recursive=True)
            assert inside
            unshare.kill()
            _, alive = psutil.wait_procs(inside, timeout=10)
            parent.kill()
        assert not alive


@pytest.fixture
def fresh() -> Iterator[None]:
    chosen_sandbox.cache_clear()
    yield
    chosen_sandbox.cache_clear()


@pytest.mark.attack
def test_a_named_sandbox_that_cannot_be_had_is_an_error(fresh: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", os.devnull)  # neither docker nor unshare
    monkeypatch.setattr(sandbox, "_environment", lambda: {"PATH": os.devnull})
    for name in ("container", "namespaces"):
        monkeypatch.setenv("SLM_SANDBOX", name)
        with pytest.raises(UserError, match=f"SLM_SANDBOX={name}: this sandbox cannot be had here"):
            chosen_sandbox()
    monkeypatch.setenv("SLM_SANDBOX", "none")
    with pytest.raises(UserError, match="there are container, namespaces, limits"):
        chosen_sandbox()
    monkeypatch.delenv("SLM_SANDBOX")
    assert chosen_sandbox() == "limits"


def test_a_container_is_shut_in_by_its_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Docker is on no machine of these tests: the command line is all that is shown."""
    monkeypatch.setenv("GITHUB_TOKEN", "ghs_planted")
    words = container_command(["python", "-I"], ChildLimits(memory_mb=300, processes=20), [tmp_path], "slm-1")
    line = " ".join(words)
    for part in (
        *(
            "docker run --rm --interactive --name slm-1",
            "--network none",
            "--read-only",
            "--user 65534:65534",
        ),
        *("--cap-drop ALL", "--security-opt no-new-privileges", "--memory 300m --memory-swap 300m"),
        *("--pids-limit 20", "--ulimit fsize=0", "--ulimit core=0", "--pull never"),
    ):
        assert part in line
    assert words[-3:] == ["slm-sandbox", "python", "-I"] and "planted" not in line
    mounts = [word for before, word in pairwise(words) if before == "--mount"]
    assert f"type=bind,source={tmp_path},target={tmp_path},readonly" in mounts
    assert all(mount.endswith(",readonly") for mount in mounts)
    assert not any("source=/," in m or "docker.sock" in m or "/.git" in m for m in mounts)


# Real packages, of a model without weights that counts what it is asked
LOOP = "[% for i in range(100000) %][% for j in range(100000) %]{{ i }}[% endfor %][% endfor %]"
TEMPLATES = {
    "a loop without end": (LOOP, "no answer in time"),
    "a text without end": (
        "[% set x = namespace(a='a') %]" + "[% set x.a = x.a ~ x.a %]" * 40 + "{{ x.a }}",
        "",
    ),
    "no template": ("[% for", ""),
}


def jinja(text: str) -> str:
    """The body's code holds no tag of Jinja, since the project itself is baked by Jinja."""
    return text.replace("[%", "{" + "%").replace("%]", "%" + "}")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return pack(of("chatml"), "chatml", tmp_path / "package")


def ask_shut_in(package: Path, prompts: list[list[dict[str, str]]]) -> list[Reply]:
    return [reply for _, reply in ask_singly(package, prompts, 8, chosen_sandbox())]


QUESTIONS = [[{"role": "user", "content": text}] for text in ("turn on", "<|im_end|>", "naïve 日本")]


@pytest.mark.twin
def test_a_stranger_is_asked_as_anybody_is(package: Path):
    """The same answers with and without a sandbox, in the order of the questions."""
    plain = [reply for _, reply in ask_singly(package, QUESTIONS, 8)]
    shut = ask_shut_in(package, QUESTIONS)
    assert [(r.text, r.token_ids, r.cut) for r in plain] == [(r.text, r.token_ids, r.cut) for r in shut]
    assert len(plain) == 3 and all(r.request_ms and r.request_ms >= (r.ttft_ms or 0) > 0 for r in shut)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.attack
def test_an_evil_template_is_refused_in_seconds(name: str, package: Path, monkeypatch: pytest.MonkeyPatch):
    text, expected = TEMPLATES[name]
    write_text(package / "chat_template.jinja", jinja(text))
    settings = read_json(package / "tokenizer_config.json")
    write_json(package / "tokenizer_config.json", {k: v for k, v in settings.items() if k != "chat_template"})
    monkeypatch.setattr(asking, "limits_for", lambda *_, **__: ChildLimits(line_s=3, memory_mb=2000))
    start = time.monotonic()
    with pytest.raises(UserError, match=f"the model cannot be asked: it .*{expected}"):
        ask_shut_in(package, QUESTIONS[:1])
    assert time.monotonic() - start < 30


FORGED: dict[str, Callable[[dict], object]] = {
    "another question's answer": lambda a: a | {"id": 7},
    "no object": lambda a: [a],
    "a key more": lambda a: a | {"x": 1},
    "a token outside of the vocabulary": lambda a: a | {"token_ids": [1 << 30]},
    "a negative token": lambda a: a | {"token_ids": [-1]},
    "no token": lambda a: a | {"token_ids": []},
    "too many tokens": lambda a: a | {"token_ids": [1] * 9},
    "a truth for a token": lambda a: a | {"token_ids": [True]},
    "a text without end": lambda a: a | {"text": "a" * 200_000},
    "no text": lambda a: a | {"text": 1},
    "a negative time": lambda a: a | {"ttft_ms": -1.0},
    "a time that has not passed": lambda a: a | {"request_ms": 1e6},
    "a first token after the last": lambda a: a | {"ttft_ms": 2.0, "request_ms": 1.0},
    "a number for a time": lambda a: a | {"request_ms": "1"},
    "negative memory": lambda a: a | {"rss_mb": -1.0},
    "a prompt beyond the context": lambda a: a | {"prompt_tokens": 1 << 30},
}
HONEST = {"id": 0, "prompt_tokens": 5, "text": "a", "token_ids": [1], "cut": False, "ttft_ms": 1.0}
HONEST |= {"request_ms": 2.0, "rss_mb": 3.0}


@pytest.mark.parametrize("name", ["honest", *FORGED])
@pytest.mark.attack
def test_an_answer_that_no_model_gives_is_refused(name: str, package: Path, monkeypatch: pytest.MonkeyPatch):
    write_text(package.parent / "answer.json", json.dumps(FORGED.get(name, dict)(HONEST)))
    path = str(package.parent / "answer.json")
    program = f"{READY}for line in sys.stdin: print(open({path!r}).read(), flush=True)"
    monkeypatch.setattr(asking, "RUN_MODULE", program)
    with asking.Asker(package, 1, 8) as asker:
        if name == "honest":
            assert asker.ask(QUESTIONS[0]).reply.token_ids == [1]
        else:
            with pytest.raises(UserError, match="its process gave no answer's"):
                asker.ask(QUESTIONS[0])
