"""Resume a killed training run. Its checkpoints lie in a folder whose name is a hash of their inputs."""

import shutil
from pathlib import Path

from ruamel.yaml import YAML

from slm.config.params import Params, value_of
from slm.files import RESUME, folder_sha256, sha256_file, sha256_json
from slm.training.distributed import checkpoint_form

PIPELINE = Path("dvc.yaml")
# What dvc.yaml lists and no checkpoint is named by. Code: who mends what stopped a training goes on with it.
# Reports: they stand there for the order of the stages. How many processes divide a batch among them: that
# may change on the way, as far as `checkpoint_form` allows it.
UNNAMED_DEPS = ("pipeline/", "slm/", "reports/")
UNNAMED_PARAMS = {"compute.processes", "compute.accelerate"}


def resume_key(stage: str, params: Params, start: Path | None = None) -> str:
    """A hash of what dvc.yaml lists for a stage: the data and models that it reads, its parameters.

    start: the folder of the model that is trained, where code made it out of those, such as by cutting its
        vocabulary: another one would not fit the checkpoints, and code is not in the key.
    """
    listed = YAML(typ="safe").load(PIPELINE.read_text(encoding="utf-8"))["stages"][stage]
    deps = [Path(dep) for dep in listed["deps"] if not dep.startswith(UNNAMED_DEPS)]
    values = params.model_dump()
    return sha256_json(
        [
            {dep.as_posix(): folder_sha256(dep) if dep.is_dir() else sha256_file(dep) for dep in deps},
            {name: value_of(values, name) for name in listed["params"] if name not in UNNAMED_PARAMS},
            start and folder_sha256(start),
        ]
    )


def checkpoint_folder(stage: str, key: str) -> Path:
    return RESUME / f"{stage}-{sha256_json([key, checkpoint_form()])[:16]}"


def last_checkpoint(folder: Path) -> str | None:
    """The newest that is whole: the state is written last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.partition("-")[2]))) if whole else None


def forget_checkpoints(stage: str) -> None:
    """The stage's outputs are written: what it could have resumed from is no longer needed."""
    for folder in RESUME.glob(f"{stage}-*"):
        shutil.rmtree(folder)
