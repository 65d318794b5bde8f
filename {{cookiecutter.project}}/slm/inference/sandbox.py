"""A program that reads what strangers made, in a process of its own: it gets lines and gives lines.

Each line is JSON, read by strict rules. The program has a time for its first line, for each further one and
for all of them. Nothing else of it is believed, and nothing that it prints reaches a log as it is. The
sandboxes:

- `container`: Docker. No network, nothing writable, no rights, the memory and the processes counted.
- `namespaces`: the same by the Linux kernel alone, with `unshare`.
- `limits`: only limits of memory, time and files, on a system that has neither.
- None: no sandbox, for a model that this project made itself.

The variable SLM_SANDBOX names one. What cannot be had is then an error, and never a weaker one. Without it
the second is tried, then the third.
"""

import contextlib
import io
import json
import os
import secrets
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from slm.errors import UserError, brief
from slm.files import folder_mb
from slm.task.strict import Unreadable, strict_json

Kind = Literal["container", "namespaces", "limits"]
VARIABLE = "SLM_SANDBOX"
SLM = Path(__file__).parents[1]
IMAGE = "slm-sandbox"  # empty: what the program needs is shown to it from outside
# Runs a module of this package in an interpreter that reads no variable and no folder of a user.
RUN_MODULE = (
    "import runpy, sys; sys.path.insert(0, sys.argv[1]); module = sys.argv[2]; del sys.argv[1:3]; "
    "runpy.run_module(module, run_name='__main__', alter_sys=True)"
)
SYSTEM_FOLDERS = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/sys/devices/system")
LONGEST_STDERR = 4000


@dataclass(frozen=True)
class ChildLimits:
    """start_s, line_s, whole_s: seconds until the first line, until each further one, and for all of them.
    memory_mb: of address space, in 10^6 bytes. processes: threads too. line_bytes: of one line.
    """

    start_s: float = 120
    line_s: float = 60
    whole_s: float = 1800
    memory_mb: float = 2000
    processes: int = 128
    line_bytes: int = 1 << 18

    def of_process(self) -> dict[str, int]:
        """The kernel's own limits; written files and core dumps have no bytes."""
        memory = {"RLIMIT_AS": int(self.memory_mb * 1e6)} if sys.platform == "linux" else {}
        return memory | {
            "RLIMIT_CPU": int(self.whole_s * 2) + 1,
            "RLIMIT_FSIZE": 0,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 256,
        }


def limits_for(folder: Path, line_s: float = 60) -> ChildLimits:
    """What a model in `folder` needs, several times over: a runtime reserves far more than it uses."""
    return ChildLimits(line_s=line_s, memory_mb=2000 + 4 * folder_mb(folder))


@cache
def chosen_sandbox() -> Kind:
    """The sandbox that SLM_SANDBOX names, or the best of this machine.

    Raises:
        UserError: the one that is named cannot be had here.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if named not in get_args(Kind):
            raise UserError(f"{VARIABLE}={named[:40]}: there are {', '.join(get_args(Kind))}")
        kind = cast(Kind, named)
        if fault := _fault_of(kind):
            raise UserError(
                f"{VARIABLE}={kind}: this sandbox cannot be had here ({fault}); a weaker one is not used "
                f"unless you name it"
            )
        return kind
    return "limits" if _fault_of("namespaces") else "namespaces"


def _fault_of(kind: Kind) -> str | None:
    """Why a sandbox cannot be had here: a program that says one word is started in it."""
    try:
        if kind == "container":
            _make_image()
        with Child(["-c", "print(1)"], ChildLimits(start_s=60), [], kind) as child:
            child.hear()
        return None
    except (UserError, OSError) as error:
        return str(error)[:300]


def _make_image() -> None:
    """An image without a file, from no registry: links as the system has them."""
    with io.BytesIO() as content:
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name in ("bin", "lib", "lib64"):
                if os.path.islink(f"/{name}"):
                    entry = tarfile.TarInfo(name)
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
                    tar.addfile(entry)
        command = ["docker", "import", "-", IMAGE]
        done = subprocess.run(command, input=content.getvalue(), capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"`docker import` failed: {done.stderr.decode(errors='replace')[-200:]}")


def _seen(folders: list[Path]) -> list[str]:
    """Everything outside that the program may read: system, interpreter, this package, what it is about."""
    interpreter = {sys.base_prefix, os.path.realpath(sys.base_prefix), sys.prefix}
    wanted = [*SYSTEM_FOLDERS, *interpreter, str(SLM), *(str(f.resolve()) for f in folders)]
    seen: list[str] = []
    for path in sorted(wanted, key=lambda p: (p.count("/"), p)):  # what is above comes first
        inside = any(path.startswith(f"{above}/") for above in seen)
        if os.path.exists(path) and not inside and path not in seen:
            seen.append(path)
    return seen


def _environment() -> dict[str, str]:
    """No variable of the outside: they hold tokens."""
    known = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/", "OMP_NUM_THREADS": "1"}
    if os.name == "nt":
        known["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    if "LD_LIBRARY_PATH" in os.environ:  # where GitHub's interpreter has its own library
        known["LD_LIBRARY_PATH"] = f"{sys.base_prefix}/lib"
    return known


def container_command(command: list[str], limits: ChildLimits, folders: list[Path], name: str) -> list[str]:
    """Docker's command line for a program in a container."""
    most, kernel = f"{int(limits.memory_mb)}m", limits.of_process()
    words = ["docker", "run", "--rm", "--interactive", "--name", name, "--hostname", "sandbox"]
    words += ["--network", "none", "--read-only", "--user", "65534:65534", "--ipc", "none"]
    words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pull", "never"]
    words += ["--memory", most, "--memory-swap", most, "--pids-limit", str(limits.processes)]
    for kind in ("cpu", "fsize", "core", "nofile"):
        words += ["--ulimit", f"{kind}={kernel[f'RLIMIT_{kind.upper()}']}"]
    for key, value in _environment().items():
        words += ["--env", f"{key}={value}"]
    for path in _seen(folders):
        if not (os.path.islink(path) and path.count("/") == 1) and not path.startswith("/sys"):
            words += ["--mount", f"type=bind,source={path},target={path},readonly"]
    return [*words, IMAGE, *command]


class Child:
    """The program, from its start to its end; a context that ends it.

    Args:
        arguments: of the interpreter.
        limits: of its time and size; without a sandbox only that of a line counts.
        folders: what it may read beside the system, the interpreter and this package.
        kind: of the sandbox.
    """

    def __init__(
        self, arguments: list[str], limits: ChildLimits, folders: list[Path], kind: Kind | None = None
    ) -> None:
        self._limits, self._kind, self._heard, self._late = limits, kind, 0, False
        self._ends = time.monotonic() + limits.whole_s
        self._name = f"slm-{secrets.token_hex(8)}"
        self._root = tempfile.TemporaryDirectory() if kind == "namespaces" else None
        command = [sys.executable, "-I", "-B", *arguments]
        self._process = subprocess.Popen(
            self._confined(command, folders),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if kind in (None, "container") else _environment(),
        )
        self._said: deque[bytes] = deque(maxlen=LONGEST_STDERR // 100)
        self._reader = threading.Thread(target=self._keep_stderr, daemon=True)
        self._reader.start()

    def _confined(self, command: list[str], folders: list[Path]) -> list[str]:
        if self._kind is None:
            return command
        if self._kind == "container":
            return container_command(command, self._limits, folders, self._name)
        if os.name == "nt":  # which has no such limits; time is limited from here
            return command
        kernel = self._limits.of_process()
        if self._kind == "namespaces":
            kernel["RLIMIT_NPROC"] = self._limits.processes
        given = {
            "root": self._root.name if self._root else None,
            "readable": _seen(folders),
            "limits": kernel,
            "command": command,
            "environment": _environment(),
        }
        words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("confine.py")), json.dumps(given)]
        if self._kind == "limits":
            return words
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        return ["unshare", *user, "--mount", "--pid", "--net", "--ipc", "--uts", "--kill-child", *words]

    def _keep_stderr(self) -> None:
        assert self._process.stderr is not None
        while block := self._process.stderr.read1(100):  # type: ignore[attr-defined]
            self._said.append(block)

    def tell(self, value: Any) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._failure("has ended") from None

    def hear(self) -> Any:
        """The next line of the program.

        Raises:
            UserError: none in time, none at all, or one that is no JSON.
        """
        assert self._process.stdout is not None
        most = self._limits.line_bytes
        with self._deadline():
            line = self._process.stdout.readline(most + 1)
        self._heard += 1
        if self._late:
            raise self._failure(
                "gave no answer in time", "its template, its tokenizer or the model never ends"
            )
        if not line:
            raise self._failure("has ended")
        if len(line) > most:
            raise self._failure(f"gave more than {most} bytes at once")
        try:
            return strict_json(line.decode("utf-8"))
        except (UnicodeDecodeError, Unreadable) as error:
            raise self._failure(f"gave what is no JSON ({str(error)[:80]!r})") from None

    @contextlib.contextmanager
    def _deadline(self) -> Any:
        """Kill the program if the block takes too long."""
        if self._kind is None:
            yield
            return
        each = self._limits.line_s if self._heard else self._limits.start_s
        timer = threading.Timer(max(0.0, min(each, self._ends - time.monotonic())), self._too_late)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _too_late(self) -> None:
        self._late = True
        self.kill()

    def _failure(self, *what: str) -> UserError:
        """What went wrong, with the last that the program said on stderr, as a text that does nothing."""
        self.kill()
        self._reader.join(5)
        lines = b"".join(self._said).decode("utf-8", errors="replace").strip().splitlines()
        if lines and not self._late:
            what = (*what, brief(lines[-1], 300))
        return UserError(f"it {': '.join(what)}")

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()
        if self._kind == "container":
            subprocess.run(["docker", "kill", self._name], capture_output=True, check=False)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        """An honest program ends when it is told nothing more; nobody waits for another."""
        if self._kind is not None:
            self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                cast(io.BufferedIOBase, stream).close()
        self._process.wait()
        self._reader.join(5)
        cast(io.BufferedIOBase, self._process.stderr).close()
        if self._root:
            self._root.cleanup()
