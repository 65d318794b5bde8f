"""Set-up by bootstrap.py, in a small project whose packages are made here: what it does, does not do twice, and says when it fails."""

import ast
import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import environment, run
from tests.test_bake import BODY

BOOTSTRAP = BODY / "bootstrap.py"
BINARIES = "Scripts" if sys.platform == "win32" else "bin"
STEPS = [f"[{n}/6]" for n in range(1, 7)]
REMEDY = "are the network and room on the disk there? Then run `python bootstrap.py` again; it goes on where it stopped"
# Builds no more than the editable install of a project without a build system to download.
BACKEND = """\
import pathlib, zipfile


def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("small.pth", str(pathlib.Path.cwd()))
        wheel.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: small\\nVersion: 1.0\\n")
        wheel.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("small-1.0.dist-info/RECORD", "")
    return name
"""
PYPROJECT = """\
[project]
name = "small"
version = "1.0"

[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# Waits where a file tells it to, and says that it does.
BASE_MODEL = """\
import pathlib, sys, time
if pathlib.Path("wait").exists():
    pathlib.Path("waiting").touch()
    time.sleep(60)
if pathlib.Path("fail").exists():
    sys.exit("error: cannot download the model")
"""
UV = f"""\
import subprocess, sys
def main():
    return subprocess.call([{str(Path(sys.executable).with_name("uv"))!r}, *sys.argv[1:]])
"""


def make_wheel(folder: Path, name: str, version: str, text: str = "", scripts: str = "") -> str:
    """A wheel of one module; returns its hash."""
    info = f"{name}-{version}.dist-info"
    files = {f"{name}.py": text, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files |= {f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}\n"} if scripts else {}
    digest = {n: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).rstrip(b"=").decode() for n, t in files.items()}
    files[f"{info}/RECORD"] = "".join(f"{n},sha256={digest[n]},{len(t.encode())}\n" for n, t in files.items()) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pin(name: str, digest: str) -> str:
    return f"{name}==1.0 \\\n    --hash=sha256:{digest}\n"


class Small:
    """A project with set-up's inputs and nothing else, and the only packages that it can have."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.wheels = folder / "small", folder / "wheels"
        for path in (self.wheels, self.folder / "requirements", self.folder / "slm", self.folder / ".dvc"):
            path.mkdir(parents=True)
        shutil.copy(BOOTSTRAP, self.folder)
        locks = {name: pin(name, make_wheel(self.wheels, name, "1.0")) for name in ("torch", "locked", "builder", "remote")}
        files = {
            "uv.txt": pin("uv", make_wheel(self.wheels, "uv", "1.0", UV, "uv = uv:main")),
            "torch.txt": "# The wheels of torch.\n" + locks["torch"],
            "locked.txt": locks["locked"],
            "olive-overlay.txt": locks["builder"],
            "remotes.txt": locks["remote"],
        }
        for name, text in files.items():
            (self.folder / "requirements" / name).write_text(text, encoding="utf-8")
        for name, text in {
            "pyproject.toml": PYPROJECT,
            "backend.py": BACKEND,
            "params.yaml": "a: 1\n",
            "slm/__main__.py": BASE_MODEL,
        }.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in environment().items() if not k.startswith(("PIP_", "UV_")) and k != "TORCH_INDEX"}
        offline = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": str(self.wheels),
        }
        return kept | offline | {"UV_CACHE_DIR": str(self.wheels.parent / "cache"), "SHELL": "/bin/bash"}

    def command(self) -> list[str]:
        return [sys.executable, "bootstrap.py"]

    def set_up(self, *options: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [*self.command(), *options], cwd=self.folder, env=self.environment() | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def edit(self, name: str, text: str) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as stream:
            stream.write(text)

    @property
    def site(self) -> Path:
        (found,) = [*self.folder.glob(".venv/lib/python3*/site-packages"), *self.folder.glob(".venv/Lib/site-packages")][:1]
        return found


def steps(done: subprocess.CompletedProcess) -> list[str]:
    return [line.split()[0] for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, subprocess.CompletedProcess]:
    small = Small(tmp_path_factory.mktemp("made"))
    return small, small.set_up()


@pytest.fixture
def made(first: tuple[Small, subprocess.CompletedProcess]) -> Small:
    """Set up once; a test leaves it set up."""
    return first[0]


@pytest.mark.parametrize(
    ("options", "code"), [(["--help"], 0), (["-h"], 0), (["--help", "--quiet"], 0), (["--quite"], 2), (["--torch", "x"], 2), (["now"], 2)]
)
def test_help_and_what_is_unknown_run_nothing(options: list[str], code: int, small: Small):
    before = set(small.folder.rglob("*"))
    done = small.set_up(*options, code=code)
    assert "--torch-index" in done.stdout + done.stderr
    assert set(small.folder.rglob("*")) == before


def test_too_old_python_is_said(small: Small):
    code = "import runpy, sys; sys.version_info = (3, 10, 9); runpy.run_path('bootstrap.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=small.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr.count("\n") == 1
        and "Python 3.11 or newer is needed, and this is 3.10.9" in done.stderr
        and "python3.12 bootstrap.py" in done.stderr
    )
    assert not (small.folder / ".venv").exists()
    # An old Python can read the file that far.
    ast.parse(BOOTSTRAP.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_second_run_does_nothing(first: tuple[Small, subprocess.CompletedProcess]):
    small, done = first
    assert steps(done) == STEPS
    end = done.stdout.splitlines()[-3:]
    assert end[0].strip() == (r".venv\Scripts\activate" if sys.platform == "win32" else "source .venv/bin/activate")
    assert [line.split("#")[0].strip() for line in end[1:]] == ["slm repro", "slm gate"]
    for path in [*small.folder.glob("requirements/*"), small.folder / "params.yaml"]:
        os.utime(path)  # dates do not count
    start = time.perf_counter()
    second = small.set_up()
    assert time.perf_counter() - start < 1
    assert steps(second) == [] and "Nothing to be done" in second.stdout
    assert small.set_up("--quiet").stdout == ""


def test_a_change_runs_the_steps_that_depend_on_it(made: Small):
    small = made
    small.edit("pyproject.toml", "\n[tool.ruff]\nline-length = 100\n")
    assert steps(small.set_up()) == []
    small.edit("params.yaml", "b: 2\n")
    assert steps(small.set_up()) == STEPS[5:]
    small.edit("pyproject.toml", '\n[project.scripts]\nx = "slm:x"\n')
    assert steps(small.set_up()) == STEPS[4:5]
    small.edit(".dvc/config", "['remote \"storage\"']\n    url = s3://bucket\n")
    assert steps(small.set_up()) == STEPS[:5]
    assert (small.site / "remote.py").exists() and (small.folder / ".venv" / "olive-overlay" / "builder.py").exists()
    small.edit(".dvc/config", "    endpointurl = http://127.0.0.1\n")
    assert steps(small.set_up()) == []


def test_where_torch_comes_from_is_remembered(small: Small):
    done = small.set_up("--torch-index", "http://127.0.0.1/cu130")
    assert "torch==1.0 from http://127.0.0.1/cu130" in done.stdout
    assert steps(small.set_up()) == []
    (small.folder / ".venv" / "ready").unlink()  # as after a stop
    assert "from http://127.0.0.1/cu130" in small.set_up().stdout
    (small.site / "torch.py").write_text("other = 1\n", encoding="utf-8")
    assert "from http://127.0.0.1/cpu" in small.set_up(TORCH_INDEX="http://127.0.0.1/cpu").stdout
    assert (small.site / "torch.py").read_text(encoding="utf-8") == ""
    assert steps(small.set_up()) == []


def test_without_network_the_remedy_is_said_and_works(small: Small):
    for number, missing in enumerate(["uv", "torch", "locked", "builder"], 1):
        (wheel,) = small.wheels.glob(f"{missing}-*.whl")
        kept = wheel.rename(small.wheels.parent / wheel.name)
        done = small.set_up(code=2)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: ") and REMEDY in last
        assert steps(done) == STEPS[:number] and not (small.folder / ".venv" / "ready").exists()
        kept.rename(wheel)
    assert steps(small.set_up()) == STEPS


def test_base_model_that_cannot_be_had(made: Small):
    small = made
    (small.folder / ".cache" / "ready").unlink()
    (small.folder / "fail").touch()
    done = small.set_up(code=2)
    assert done.stderr.splitlines()[-2] == "error: cannot download the model"
    assert "it goes on where it stopped" in done.stderr.splitlines()[-1]
    (small.folder / "fail").unlink()
    assert steps(small.set_up()) == STEPS[5:]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Ctrl-C for one process group")
def test_stopped_set_up_goes_on(made: Small):
    small = made
    (small.folder / ".cache" / "ready").unlink()
    (small.folder / "wait").touch()
    process = subprocess.Popen(
        small.command(),
        cwd=small.folder,
        env=small.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (small.folder / "waiting").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and said.splitlines()[-1] == "stopped; run `python bootstrap.py` again; it goes on where it stopped"
    assert not (small.folder / ".cache" / "ready").exists()
    (small.folder / "wait").unlink()
    assert steps(small.set_up()) == STEPS[5:]


def test_packages_that_a_kill_left_half_installed_are_mended(made: Small):
    small = made
    (small.folder / ".venv" / "ready").unlink()
    (small.site / "torch.py").write_text("half", encoding="utf-8")
    (small.site / "locked.py").unlink()
    next(small.site.glob("uv-*.dist-info/RECORD")).unlink()
    (small.folder / ".venv" / "olive-overlay" / "builder.py").unlink()
    small.set_up()
    assert (small.site / "torch.py").read_text(encoding="utf-8") == ""
    assert (small.site / "locked.py").exists() and list(small.site.glob("uv-*.dist-info/RECORD"))
    assert (small.folder / ".venv" / "olive-overlay" / "builder.py").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows makes links for administrators alone")
def test_shared_environment_keeps_its_owner(made: Small):
    small = made
    copy = small.folder.with_name("copy")
    shutil.copytree(small.folder, copy, ignore=shutil.ignore_patterns(".venv"))
    (copy / ".venv").symlink_to(small.folder / ".venv")
    owner, small.folder = small.folder, copy
    assert steps(small.set_up()) == []
    small.edit("pyproject.toml", '\n[project.urls]\nx = "https://example.org"\n')
    assert steps(small.set_up()) == []
    assert (small.site / "small.pth").read_text(encoding="utf-8") == str(owner)
    small.folder = owner
    assert steps(small.set_up()) == []


def test_moved_environment_is_made_again(small: Small):
    small.set_up()
    small.folder = small.folder.rename(small.folder.with_name("moved"))
    done = small.set_up()
    assert "an environment cannot move: it is made again" in done.stdout and steps(done) == STEPS[:5]
    assert (small.site / "small.pth").read_text(encoding="utf-8") == str(small.folder)
    assert json.loads((small.folder / ".venv" / "made.json").read_text(encoding="utf-8"))["folder"] == str(small.folder / ".venv")


# Where packages come from


class Indexes:
    """Package indexes on loopback: each is a folder, and its address ends with the folder's name."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(self.Handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, index: str, name: str, version: str, text: str) -> str:
        """Put a wheel into an index; returns its hash."""
        page = self.folder / index / name
        page.mkdir(parents=True)
        digest = make_wheel(page, name, version, text)
        (page / "index.html").write_text("".join(f'<a href="{w.name}">{w.name}</a>' for w in page.glob("*.whl")), encoding="utf-8")
        return digest

    def url(self, index: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{index}"


@pytest.fixture
def again(made: Small, tmp_path: Path) -> Iterator[Small]:
    """The project that is set up, to be given other wheels and locks: an environment of its own would cost each test seconds.

    What comes after in this file finds the old wheels and locks again, and sets up by itself.
    """
    for folder in (made.wheels, made.folder / "requirements"):
        shutil.copytree(folder, tmp_path / folder.name)
    yield made
    for folder in (made.wheels, made.folder / "requirements"):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / folder.name, folder)


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[Indexes]:
    indexes = Indexes(tmp_path / "indexes")
    yield indexes
    indexes.server.shutdown()
    indexes.server.server_close()


def from_index(small: Small, indexes: Indexes, build: str, **variables: str) -> dict[str, str]:
    """The environment of a machine that finds torch in an index alone, as most do."""
    (small.wheels / "torch-1.0-py3-none-any.whl").unlink()
    network = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": indexes.url("packages"), "TORCH_INDEX": indexes.url(build)}
    return network | {"UV_NO_INDEX": "1"} | variables


def installed(small: Small) -> str:
    return (small.site / "torch.py").read_text(encoding="utf-8")


def known_build(indexes: Indexes, small: Small, build: str) -> None:
    """An index that sends the wheel whose hash the project has."""
    digest = indexes.serve(build, "torch", "1.0", "genuine = 1\n")
    (small.folder / "requirements" / "torch.txt").write_text(pin("torch", digest), encoding="utf-8")


@pytest.mark.twin
def test_the_wheel_that_is_pinned_is_taken(again: Small, indexes: Indexes):
    known_build(indexes, again, "cpu")
    done = again.set_up(**from_index(again, indexes, "cpu/"))
    assert installed(again) == "genuine = 1\n" and "warning" not in done.stderr


@pytest.mark.attack
@pytest.mark.parametrize("name", ["uv", "torch", "locked", "builder"])
def test_a_wheel_of_other_bytes_is_not_installed(name: str, again: Small):
    make_wheel(again.wheels, name, "1.0", "planted = 1\n")
    shutil.rmtree(again.wheels.parent / "cache", ignore_errors=True)  # there uv keeps what it has checked
    for path in (again.folder / ".venv").rglob(f"{name}.py"):
        path.unlink()
    (again.folder / ".venv" / "ready").unlink(missing_ok=True)
    done = again.set_up(code=2)
    assert REMEDY in done.stderr.splitlines()[-1] and not (again.folder / ".venv" / "ready").exists()
    assert not list((again.folder / ".venv").rglob(f"{name}.py"))


@pytest.mark.attack
@pytest.mark.parametrize(("build", "where"), [("cpu", "variable"), ("cu999", "file")])
def test_no_other_index_serves_torch(build: str, where: str, again: Small, indexes: Indexes, tmp_path: Path):
    """A newer build of the same version, from an index that pip's settings name beside that of torch."""
    known_build(indexes, again, build)
    indexes.serve("other", "torch", "1.0+zzz", "planted = 1\n")
    (tmp_path / "pip.conf").write_text(f"[global]\nextra-index-url = {indexes.url('other')}\n", encoding="utf-8")
    settings = {"variable": {"PIP_EXTRA_INDEX_URL": indexes.url("other")}, "file": {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}}
    again.set_up(**from_index(again, indexes, build, **settings[where]))
    assert installed(again) == "genuine = 1\n"


@pytest.mark.twin
def test_an_index_without_hashes_is_taken_and_named(again: Small, indexes: Indexes):
    indexes.serve("cu999", "torch", "1.0+cu999", "gpu = 1\n")
    done = again.set_up(**from_index(again, indexes, "cu999"))
    assert installed(again) == "gpu = 1\n"
    assert f"warning: requirements/torch.txt has no hashes for {indexes.url('cu999')}" in done.stderr


@pytest.mark.attack
@pytest.mark.parametrize("name", ["uv", "torch"])
def test_a_lock_that_pins_nothing_stops_set_up(name: str, again: Small):
    (again.folder / "requirements" / f"{name}.txt").write_text(f"{name}\n", encoding="utf-8")
    done = again.set_up(code=2)
    assert f"error: requirements/{name}.txt pins no {name}: take that file from git" in done.stderr


def test_every_lock_has_hashes_and_no_address():
    """What set-up, workflows and container install; --hash behind every requirement."""
    locks = sorted((BODY / "requirements").glob("*.txt"))
    assert {"uv", "torch", "locked", "serve", "signing"} <= {path.stem for path in locks}
    for path in [*locks, BODY.parent / "requirements.txt", BODY.parent / "requirements-test.txt"]:
        if path.name == "no-cuda.txt":  # it removes packages from a lock, and names none to install
            continue
        lines = [line for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines() if not line.startswith("#")]
        assert lines and all("==" in line and "--hash=sha256:" in line for line in lines), path.name
        assert not [line for line in lines if "://" in line or "/opt" in line or line.startswith("-")], path.name


@pytest.mark.slow
def test_installed_project_is_this_folder(project: Path, tmp_path: Path):
    done = run(tmp_path, str(project / ".venv" / BINARIES / "python"), "-c", "import slm, pipeline; print(slm.__file__, pipeline.__file__)")
    assert done.stdout.split() == [str(project / name / "__init__.py") for name in ("slm", "pipeline")]
