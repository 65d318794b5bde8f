"""What the tests of the data remote start from: the chain's project as it is with `data_remote: s3`, its remote an S3 on loopback."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.bake import bake
from tests.conftest import python, run
from tests.storage import WRITER, Storage, keys
from tests.world import AUTHOR, World, build_base, share
from tests.worlds import GATES

BUCKET, KEPT = "test-slm", "kept"


@pytest.fixture(scope="session")
def s3() -> Iterator[Storage]:
    storage = Storage()
    storage.make(BUCKET)
    yield storage
    storage.stop()


@pytest.fixture(scope="session")
def project_s3(chain: Path, s3: Storage) -> Path:
    """The chain's project with the configuration that a bake with S3 has, pointed at loopback, and the environment that it asks for."""
    project = chain.parent / "s3" / chain.name
    kept = project.with_name(".venv")  # an environment that is paid for survives
    if (project / ".venv").exists():
        (project / ".venv").rename(kept)
    shutil.rmtree(project, ignore_errors=True)
    run(chain, "git", "clone", "--quiet", str(chain), str(project))
    if kept.exists():
        kept.rename(project / ".venv")
    with tempfile.TemporaryDirectory() as scratch:
        baked = bake(Path(scratch) / chain.name, data_remote="s3")
        shutil.copyfile(baked / ".dvc" / "config", project / ".dvc" / "config")
    (project / ".cache").symlink_to(chain / ".cache")
    run(project, "make", "setup")
    python(project, "-m", "dvc", "remote", "modify", "storage", "endpointurl", s3.url)
    run(project, "git", *AUTHOR, "commit", "--quiet", "--all", "--message", "A data remote")
    shutil.copyfile(chain / "dvc.lock", project / "dvc.lock")
    share(chain / ".dvc" / "cache", project / ".dvc" / "cache")
    return project


@pytest.fixture(scope="session")
def base_s3(project_s3: Path) -> Path:
    folder = project_s3.with_name("base")
    shutil.rmtree(folder, ignore_errors=True)
    build_base(project_s3, folder, GATES)
    return folder


@pytest.fixture
def stored(base_s3: Path, s3: Storage) -> Iterator[World]:
    """main with a data remote that is up and empty."""
    s3.start()
    s3.empty(BUCKET)
    folder = Path(tempfile.mkdtemp(dir=base_s3.parent))
    world = World(base_s3, folder)
    yield world
    world.close()
    shutil.rmtree(folder, ignore_errors=True)


def fill(s3: Storage, project: Path) -> None:
    """Everything that dvc.lock names, as if pushed from home; done once, then copied inside the storage."""
    if KEPT not in s3.buckets():
        run(project, "env", *(f"{k}={v}" for k, v in keys(WRITER).items()), ".venv/bin/python", "-m", "slm", "push")
        s3.make(KEPT)
        s3.copy(BUCKET, KEPT)
    s3.copy(KEPT, BUCKET)
    s3.requests.clear()


def lose_caches(world: World) -> None:
    for path in (world.folder / "cache").glob("dvc-*"):
        shutil.rmtree(path)


def outputs(lock: Path) -> list[dict[str, Any]]:
    """The outputs that a dvc.lock names."""
    return [out for stage in YAML(typ="safe").load(lock)["stages"].values() for out in stage["outs"]]


def hashes(lock: Path) -> set[str]:
    return {out["md5"] for out in outputs(lock)}


def address(md5: str) -> str:
    return f"dvc/files/md5/{md5[:2]}/{md5[2:]}"


def lacking(s3: Storage, wanted: set[str]) -> set[str]:
    """Hashes among `wanted`, and of the files in their folders, that the remote has not."""
    there = s3.objects(BUCKET)
    missing = {md5 for md5 in wanted if address(md5) not in there}
    for md5 in wanted - missing:
        if md5.endswith(".dir"):
            missing |= {row["md5"] for row in json.loads(s3.read(BUCKET, address(md5))) if address(row["md5"]) not in there}
    return missing


def folders(s3: Storage) -> set[str]:
    """Hashes of the folders that the remote has an index of."""
    return {name.removeprefix("dvc/files/md5/").replace("/", "") for name in s3.objects(BUCKET) if name.endswith(".dir")}


def writes(s3: Storage) -> list[str]:
    return [path for method, path, _ in s3.requests if method not in ("GET", "HEAD")]
