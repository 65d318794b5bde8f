"""Shut this process in, then become another program. Standard library only; Linux for all but the limits.

    python -I -S slm/inference/confine.py SPECIFICATION        JSON, see `Specification`

`slm.inference.sandbox` starts it, where wanted in namespaces of its own. What cannot be shut ends it: the
program never starts less confined than was asked.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any, TypedDict

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 1 << 12, 1 << 14, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY_NO_SUID = 442, -100, 0x8000, 3
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, SIGKILL = 1, 24, 38, 9
DEVICES = ("null", "zero", "urandom", "random")
# Of no other process, so that its processes can be counted by it.
NOBODY = 64_317


class Specification(TypedDict):
    """root: an empty folder, which becomes the root of the file system; None leaves the file system as it is.
    readable: the files and folders that are seen there, and nothing else. limits: by name of `resource`, such
    as RLIMIT_CPU. command: the program and its arguments. environment: all of its variables.
    """

    root: str | None
    readable: list[str]
    limits: dict[str, int]
    command: list[str]
    environment: dict[str, str]


def _call(name: str, *arguments: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [a.encode() if isinstance(a, str) else a for a in arguments]
    if getattr(libc, name)(*words) != 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments[:3]}: {os.strerror(ctypes.get_errno())}")


def _read_only(path: str, flags: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY_NO_SUID, 0, 0, 0)
    _call("syscall", MOUNT_SETATTR, AT_FDCWD, path, flags, attributes, ctypes.sizeof(attributes))


def _show(root: Path, source: str) -> None:
    """One file, folder or link of the outside below `root`, read-only."""
    target = root / source.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.islink(source) and source.count("/") == 1:  # /lib is usr/lib on most systems
        target.symlink_to(os.readlink(source))
        return
    if target.exists():
        return
    target.mkdir() if os.path.isdir(source) else target.touch()
    _call("mount", source, str(target), None, MS_BIND | MS_REC, None)
    _read_only(str(target), AT_RECURSIVE)


def _enter(root: Path, readable: list[str]) -> None:
    """A file system of what is readable, with nothing of it writable."""
    _call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    _call("mount", "none", str(root), "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    for source in readable:
        _show(root, source)
    for name in DEVICES:
        _show(root, f"/dev/{name}")
    (root / "proc").mkdir()
    _call("mount", "proc", str(root / "proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    _read_only(str(root), 0)
    os.chroot(root)
    os.chdir("/")


def _drop_rights() -> None:
    """No right that a user does not have, and none that a program could give."""
    for capability in range(64):
        if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    # A namespace of users that a person made has that person alone: there is no other to become.
    first, _, count = (int(word) for word in Path("/proc/self/uid_map").read_text().split()[:3])
    if first <= NOBODY < first + count:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def main() -> None:
    given: Specification = json.loads(sys.argv[1])
    if given["root"] is not None:
        _enter(Path(given["root"]), given["readable"])
        _drop_rights()
        _call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if sys.platform == "linux":
        _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if sys.platform != "win32":
        import resource

        for name, most in given["limits"].items():
            kind = getattr(resource, name)
            _, hard = resource.getrlimit(kind)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))
    os.execve(given["command"][0], given["command"], given["environment"])


if __name__ == "__main__":
    main()
