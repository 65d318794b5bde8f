"""Sets the project up: `python bootstrap.py`, or `make setup`.

Run it again at any time: what is done is not done twice. It needs Python 3.11 or newer and nothing else.
Six steps, in this order:

1. `.venv`, the project's own environment, and uv in it by its hash, which installs the packages
2. torch, first and alone, from its own index and by its hash where requirements/torch.txt has one
3. the packages of requirements/locked.txt by their hashes, and those of remotes.txt where .dvc/config
   names a remote
4. the builder of Olive, in a folder of its own (slm's module `olive` says why)
5. the project itself, so that the command `slm` runs the code of this folder
6. the base model that params.yaml names, into `.cache`

Three files say what is done: .venv/ready (steps 1 to 4), .venv/project (step 5) and .cache/ready (step 6).
Each holds a hash of what its steps depend on. Dates do not count, so an environment from a cache is accepted.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - whatever Python a machine has may read this file
    found = ".".join(str(part) for part in sys.version_info[:3])
    print(
        f"error: Python 3.11 or newer is needed, and this is {found}: run a newer one, "
        "such as `python3.12 bootstrap.py` (with make: `make setup PYTHON=python3.12`)",
        file=sys.stderr,
    )
    sys.exit(2)

ROOT = Path(__file__).absolute().parent
VENV, CACHE, REQUIREMENTS = ROOT / ".venv", ROOT / ".cache", ROOT / "requirements"
WINDOWS = os.name == "nt"
BIN = VENV / ("Scripts" if WINDOWS else "bin")
PYTHON, UV = (BIN / (f"{name}.exe" if WINDOWS else name) for name in ("python", "uv"))
PIP = [PYTHON, "-I", "-m", "pip", "--disable-pip-version-check"]

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
AGAIN = "run `python bootstrap.py` again; it goes on where it stopped"
OFFLINE = f"could not be had: are the network and room on the disk there? Then {AGAIN}"
# The bars of pip are for people who watch; a log needs the errors alone.
QUIET = [] if sys.stdout.isatty() else ["--quiet"]


class Problem(Exception):
    """Something that the user must mend, in one line."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Set the project up. What is done is not done twice.", allow_abbrev=False
    )
    parser.add_argument(
        "--torch-index",
        metavar="URL",
        default=os.environ.get("TORCH_INDEX") or None,
        help="where torch comes from, remembered once given; for an NVIDIA GPU "
        f"https://download.pytorch.org/whl/cu130 (default: the variable TORCH_INDEX, else {TORCH_INDEX})",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="say only what is done, and nothing where nothing is to be done"
    )
    options = parser.parse_args()
    try:
        worked = set_up(options.torch_index)
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: {error}: may this folder be written, and is there room on the disk? Then {AGAIN}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; {AGAIN}", file=sys.stderr)
        return 130
    if not options.quiet:
        print(
            "Set-up is done."
            if worked
            else "Nothing to be done: the environment and the base model are up to date."
        )
        print(next_steps())
    return 0


def set_up(torch_index: str | None) -> bool:
    """Run the steps whose inputs have changed. Returns whether there was one."""
    forget_moved_environment()
    index = torch_index or how_made().get("torch_index") or TORCH_INDEX
    worked = False

    key = packages_key(index)
    if not PYTHON.exists() or not is_done(VENV / "ready", key):
        worked = True
        for stamp in ("ready", "project"):
            (VENV / stamp).unlink(missing_ok=True)
        make_environment()
        install_torch(index)
        install_packages()
        mark_done(VENV / "ready", key)

    # Several checkouts may share one environment by a link. The command in it belongs to the checkout
    # that holds the folder.
    key = project_key()
    if not VENV.is_symlink() and not is_done(VENV / "project", key):
        worked = True
        (VENV / "project").unlink(missing_ok=True)
        install_project()
        mark_done(VENV / "project", key)

    key = hash_of((ROOT / "params.yaml").read_bytes())
    if not is_done(CACHE / "ready", key):
        worked = True
        (CACHE / "ready").unlink(missing_ok=True)
        fetch_base_model()
        mark_done(CACHE / "ready", key)
    return worked


# Step 1


def make_environment() -> None:
    say(1, f"environment in .venv, and {pinned('uv')}")
    forget_damaged_packages()
    # `uv venv` leaves pip out, and so does a set-up that was stopped early.
    find_pip = [str(PYTHON), "-c", "import importlib.metadata, pip; importlib.metadata.version('pip')"]
    if not PYTHON.exists() or subprocess.run(find_pip, capture_output=True, check=False).returncode:
        base = (
            getattr(sys, "_base_executable", None) or sys.executable
        )  # .venv's own Python may have just been deleted
        run(
            [base, "-I", "-m", "venv", VENV],
            f".venv could not be made; on Debian and Ubuntu run `apt install python3-venv`. Then {AGAIN}",
        )
    run(
        [PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
        f".venv is of a Python older than 3.11: delete the folder .venv, then {AGAIN}",
    )
    remember(folder=str(VENV.resolve()))
    run([*PIP, "install", "--quiet", "--no-deps", *by_hash("uv")], f"uv {OFFLINE}")


def forget_moved_environment() -> None:
    """Programs in an environment name its folder: one that was moved or copied is deleted and made again."""
    folder = how_made().get("folder")
    if not folder or (Path(folder).exists() and os.path.samefile(folder, VENV)):
        return
    if VENV.is_symlink():
        raise Problem(
            f".venv is a link to an environment that has moved from {folder}: delete the link, then {AGAIN}"
        )
    print(f".venv was made in {folder}, and an environment cannot move: it is made again", flush=True)
    shutil.rmtree(VENV)


def forget_damaged_packages() -> None:
    """A set-up that was killed may have left packages with files missing or cut short. They are installed
    again.
    """
    folders = [
        VENV / "Lib" / "site-packages",
        *VENV.glob("lib/python3*/site-packages"),
        VENV / "olive-overlay",
    ]
    for info in (info for folder in folders for info in folder.glob("*.dist-info")):
        try:
            with (info / "RECORD").open(encoding="utf-8", newline="") as stream:
                rows = [row for row in csv.reader(stream) if row and not row[0].endswith(".pyc")]
            whole = all(size in ("", str((info.parent / name).stat().st_size)) for name, _, size in rows)
        except (OSError, ValueError):
            whole = False
        if not whole:
            shutil.rmtree(info)


# Step 2: torch's index is not the package index. Its dependencies are in the lock, but for those of a CUDA
# build.


def install_torch(index: str) -> None:
    version = pinned("torch")
    say(2, f"{version} from {index}")
    if how_made().get("torch_index", index) != index:  # pip takes the build of another index for the same
        run(
            [*PIP, "uninstall", "--quiet", "--yes", "torch"],
            f"torch could not be removed: delete the folder .venv, then {AGAIN}",
        )
    remember(torch_index=index)
    install, hashed = [*PIP, "install", *QUIET, "--retries", "1"], has_hashes(index)
    if not hashed:
        warn(f"requirements/torch.txt has no hashes for {index} on this system: torch is taken as it comes")
    # Of several indexes pip would take the newest build, whoever sent it. So torch has one index here, even
    # where the settings of pip name more.
    run(
        [*install, "--no-deps", "--index-url", index, *(by_hash("torch") if hashed else [version])],
        f"torch {OFFLINE}",
        PIP_EXTRA_INDEX_URL=index,
    )
    if build_of(index) != "cpu":
        warn("the GPU libraries of torch have no hashes: they are taken as they come")
        run([*install, "--extra-index-url", index, version], f"the GPU libraries of torch {OFFLINE}")


def build_of(index: str) -> str:
    """The last part of an index's address, such as cpu or cu130."""
    return index.rstrip("/").rpartition("/")[2]


def has_hashes(index: str) -> bool:
    """Whether requirements/torch.txt has the hash of the wheel that this machine takes from an index."""
    cuda = build_of(index) == "cu130" and sys.platform == "linux" and platform.machine() == "x86_64"
    return build_of(index) == "cpu" or cuda


# Steps 3 and 4


def install_packages() -> None:
    files = [REQUIREMENTS / "locked.txt", *([REQUIREMENTS / "remotes.txt"] if has_remote() else [])]
    say(3, f"packages of {' and '.join(f'requirements/{f.name}' for f in files)}")
    install = [UV, "pip", "install", "--python", PYTHON, "--no-deps", "--require-hashes"]
    run(
        [*install, *QUIET, "--compile-bytecode", *(word for file in files for word in ("-r", file))],
        f"the packages {OFFLINE}",
    )
    say(4, "the builder of Olive")
    overlay = ["--target", VENV / "olive-overlay", "-r", REQUIREMENTS / "olive-overlay.txt"]
    run([*install, "--quiet", *overlay], f"the builder of Olive {OFFLINE}")


def has_remote() -> bool:
    config = ROOT / ".dvc" / "config"
    return (
        config.exists()
        and re.search(r"^\s*url\s*=", config.read_text(encoding="utf-8"), re.MULTILINE) is not None
    )


def packages_key(index: str) -> str:
    """Of what the packages depend on: this file, where torch comes from, and the locks."""
    names = ["uv.txt", "torch.txt", "locked.txt", "olive-overlay.txt"]
    names += ["remotes.txt"] if has_remote() else []
    return hash_of(
        Path(__file__).read_bytes(), index.encode(), *((REQUIREMENTS / name).read_bytes() for name in names)
    )


# Step 5: the build backend is in the lock, so nothing is downloaded.


def install_project() -> None:
    say(5, "the project itself, for the command `slm`")
    install = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--python",
        PYTHON,
        "--no-deps",
        "--no-build-isolation",
        "--editable",
        ROOT,
    ]
    run(
        install,
        f"the project could not be installed; the lines above say why. Mend pyproject.toml, then {AGAIN}",
    )


def project_key() -> str:
    """Of what pyproject.toml says of the package; its settings of tools do not count."""
    import tomllib

    try:
        told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"pyproject.toml: {error}") from None
    package = [told.get("build-system"), told.get("project"), told.get("tool", {}).get("setuptools")]
    return hash_of(json.dumps(package, sort_keys=True, default=str).encode())


# Step 6


def fetch_base_model() -> None:
    say(6, "the base model that params.yaml names, into .cache")
    network = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    run(
        [PYTHON, "-m", "slm", "base-model"],
        f"the base model is not there; the line above says why. Then {AGAIN}",
        **network,
    )


# What the steps share


def say(number: int, text: str) -> None:
    print(f"[{number}/6] {text}", flush=True)


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def pinned(name: str) -> str:
    """What a lock of one package pins, such as `uv==1.0`."""
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{name}==[^\s;\\]+", text, re.MULTILINE)
    if found is None:
        raise Problem(f"requirements/{name}.txt pins no {name}: take that file from git, then {AGAIN}")
    return found[0]


def by_hash(name: str) -> list[object]:
    return ["--require-hashes", "-r", REQUIREMENTS / f"{name}.txt"]


def run(command: Sequence[object], problem: str, **variables: str) -> None:
    """Run a command in the project's folder. If it fails, `problem` says what to do."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=os.environ | variables, check=False)
    if done.returncode:
        raise Problem(problem)


def hash_of(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def is_done(stamp: Path, key: str) -> bool:
    return stamp.exists() and stamp.read_text(encoding="utf-8") == key


def mark_done(stamp: Path, key: str) -> None:
    """Whole or not at all: two set-ups may run at once."""
    stamp.parent.mkdir(exist_ok=True)
    new = stamp.with_name(f"{stamp.name}.{os.getpid()}")
    new.write_text(key, encoding="utf-8")
    new.replace(stamp)


def how_made() -> dict[str, str]:
    """Where .venv was made, and where its torch comes from."""
    path = VENV / "made.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def remember(**facts: str) -> None:
    mark_done(VENV / "made.json", json.dumps(how_made() | facts))


def next_steps() -> str:
    """The line that activates the environment in the user's shell, and what to run then."""
    shell = Path(os.environ.get("SHELL") or "sh").name
    if WINDOWS and "MSYSTEM" not in os.environ:  # cmd and PowerShell; Git Bash sets that variable
        activate = r".venv\Scripts\activate"
    else:
        ending = {"fish": ".fish", "csh": ".csh", "tcsh": ".csh"}.get(shell, "")
        activate = f"{'.' if shell in ('sh', 'dash') else 'source'} .venv/{BIN.name}/activate{ending}"
    lines = [
        activate,
        "slm repro      # make the model: runs only what changed",
        "slm gate       # judge it by gates.yaml",
    ]
    if Path.cwd() != ROOT:
        lines.insert(0, f"cd {ROOT}")
    return "\n".join(["Next:", *(f"  {line}" for line in lines)])


if __name__ == "__main__":
    sys.exit(main())
