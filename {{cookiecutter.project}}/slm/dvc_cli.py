"""DVC's command line, what its status says, and which of its settings a repository may bring."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slm.errors import UserError
from slm.git import git

# Isolated, so that no file at the root of the checkout stands before a library: it may run with keys.
DVC = (sys.executable, "-I", "-m", "dvc")

# What is not here but whose hash is in the lock is no change: it can be pulled or made again, to the same
# bytes.
ABSENT = {"deleted", "not in cache"}

# What .dvc/config may say: where the data lies and how fast it moves. Whoever writes the other keys of DVC's
# schema may start a program (configpath, bearer_token_command), read a file of the machine (keyfile), lend
# its identity (allow_agent), weaken a connection (ssl_verify), or keep a secret in Git (password).
CONFIG_KEYS = {
    "core": {"analytics", "autostage", "check_update", "checksum_jobs", "remote"},
    "cache": {"shared", "slow_link_warning", "type", "verify"},
}
REMOTE_KEYS = {
    *("url", "jobs", "checksum_jobs", "version_aware", "worktree", "verify", "type", "timeout"),
    *("connect_timeout", "read_timeout", "connection_timeout", "allow_anonymous_login"),
    *("region", "profile", "endpointurl", "listobjects", "sse", "sse_kms_key_id", "cache_regions"),
    *("projectname", "account_name", "tenant_id", "client_id"),
    *("exclude_environment_credential", "exclude_visual_studio_code_credential"),
    *("exclude_shared_token_cache_credential", "exclude_managed_identity_credential"),
    *("user", "port", "max_sessions", "replication", "oss_endpoint"),
}

# Variables that name a file or folder with settings of the same kind.
SETTINGS_ELSEWHERE = (
    *("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"),
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS"),
)
# What an entry of a data file says when it brings settings of its own, or those of another repository.
ELSEWHERE = ("fs_config", "repo", "db")
# Where a .dvc file may put data.
DATA_FOLDERS = ("task", "answers", "data", "models", "predictions", "reports", "dist")


def dvc_status(checkout: Path = Path()) -> dict[str, list[Any]]:
    command = [*DVC, "status", "--json"]
    done = subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise UserError(f"dvc status: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout or "{}")


def absent(how: Any) -> bool:
    return isinstance(how, str) and how in ABSENT


def out_of_lock(status: dict[str, list[Any]]) -> dict[str, list[str]]:
    """Stages whose lock entry does not fit the files: stage -> what differs."""
    stale: dict[str, list[str]] = {}
    for name, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):  # "changed command", "always changed"
                stale.setdefault(name, []).append(entry)
                continue
            for kind, paths in entry.items():
                if isinstance(paths, dict):
                    found = [_say(path, how) for path, how in paths.items() if not absent(how)]
                else:
                    found = [f"{kind}: {paths}"]
                if found:
                    stale.setdefault(name, []).extend(found)
    return stale


def _say(path: str, how: Any) -> str:
    return f"{path} ({', '.join(how) if isinstance(how, dict) else how})"


def lacking(status: dict[str, list[Any]]) -> set[str]:
    """Stages with an output that is neither here nor in the cache."""
    return {
        name
        for name, entries in status.items()
        for entry in entries
        if isinstance(entry, dict) and any(absent(how) for how in (entry.get("changed outs") or {}).values())
    }


def dvc(*arguments: str, folder: Path = Path(), remedy: str = "") -> None:
    """Run a DVC command in a checkout, its output shown; what fails names the remedy."""
    code = try_dvc(*arguments, folder=folder)
    if code:
        place = "" if folder == Path() else f"{folder}: "
        raise UserError(f"{place}`dvc {' '.join(arguments)}` failed, see above{remedy and f'; {remedy}'}")


def try_dvc(*arguments: str, folder: Path = Path()) -> int:
    return subprocess.run([*DVC, *arguments], cwd=folder, check=False).returncode


def check_dvc_settings() -> None:
    """Refuse settings of this repository that DVC would follow with the keys of whoever runs it: in
    .dvc/config, in the files that name data, and where a variable points to. What Git does not track is this
    machine's own.
    """
    here = Path.cwd().resolve()
    for name in SETTINGS_ELSEWHERE:
        value = os.environ.get(name)
        place = Path(value or "/").resolve()
        if value and place.is_relative_to(here) and git("ls-files", "--", str(place)):
            raise UserError(f"the variable {name} names {value}, which Git tracks; unset it, or name another")
    names = git("ls-files", "-z", "--", ".dvc/config.local", "*.dvc", "*dvc.yaml").split("\0")
    for path in (Path(".dvc/config"), *map(Path, filter(None, names))):
        if path.suffix != ".dvc" and path.parent == Path(".dvc"):
            _check_config(path)
        else:
            _check_data_file(path)


def _check_config(path: Path) -> None:
    from dvc.config import Config, ConfigError

    try:
        settings = Config.load_file(str(path)) if path.exists() else {}
    except ConfigError as error:
        raise UserError(f"{path}: {error}; correct the file") from None
    sections = {name: value for name, value in settings.items() if name != "remote"}
    found = [(name, CONFIG_KEYS.get(name, set()), value) for name, value in sections.items()]
    found += [(f"remote {n!r}", REMOTE_KEYS, value) for n, value in (settings.get("remote") or {}).items()]
    for name, allowed, value in found:
        keys = value if isinstance(value, dict) else {"": value}
        for key in sorted(set(keys) - allowed):
            raise UserError(
                f"{path}: {name} sets {key!r}, which may run a program, read a file or show a secret "
                "wherever this repository is used; remove it, and set it with `dvc config --local` or "
                "`dvc remote modify --local` where it is needed"
            )


def _check_data_file(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        waiting = [(YAML(typ="safe").load(text), False)]
    except (OSError, UnicodeDecodeError, YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}; correct the file") from None
    seen: set[tuple[int, bool]] = set()  # an anchor may hold itself
    while waiting:
        value, in_entry = waiting.pop()
        if (id(value), in_entry) in seen:
            continue
        seen.add((id(value), in_entry))
        if isinstance(value, dict):
            for key in ELSEWHERE if in_entry else ():
                if key in value:
                    raise UserError(
                        f"{path}: {key!r} lets DVC follow the settings of another place with your keys; take "
                        "the files with `dvc get` or `dvc get-url`, then `dvc add` them"
                    )
            waiting += [(inner, in_entry or key in ("deps", "outs")) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(inner, in_entry) for inner in value]
    if path.suffix == ".dvc":
        _check_places(path, YAML(typ="safe").load(text))


def _check_places(path: Path, content: Any) -> None:
    """A .dvc file may write into the folders of data alone: elsewhere it could lay a file beside code that
    runs next.
    """
    here = Path.cwd().resolve()
    outs = content.get("outs") if isinstance(content, dict) else None
    for out in outs if isinstance(outs, list) else []:
        name = str(out.get("path")) if isinstance(out, dict) else str(out)
        place = (here / path.parent / name).resolve()
        inside = place.relative_to(here).parts if place.is_relative_to(here) else ()
        if "wdir" in content or not inside or inside[0] not in DATA_FOLDERS:
            raise UserError(
                f"{path}: it writes {name[:80]!r}, which is not inside one of {', '.join(DATA_FOLDERS)}; "
                "move the data there, and `dvc add` it"
            )
