"""Change `params.yaml` in place: comments and all other lines stay as they are."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, RoundTripRepresenter

from slm.config.params import PARAMS, Params
from slm.errors import UserError
from slm.files import write_text

PROFILES = Path("profiles")


def merge(base: Any, overrides: Any, where: str = "") -> None:
    """Write `overrides` into `base` in place; a key that `base` lacks is an error."""
    for key, value in overrides.items():
        if key not in base:
            raise UserError(f"{where}{key} is in the profile but not in {PARAMS}; correct the spelling")
        if isinstance(value, dict) and isinstance(base[key], dict):
            merge(base[key], value, f"{where}{key}.")
        else:
            base[key] = value


class _AsWritten(RoundTripRepresenter):
    """`null` stays a word, so that only those lines change that say something else."""


_AsWritten.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def edit(change: Callable[[Any], None], path: Path = PARAMS) -> None:
    """Change `params.yaml` in place; comments and all other lines stay as they are."""
    yaml = YAML()
    yaml.Representer = _AsWritten
    yaml.width = 4096
    yaml.preserve_quotes = True
    params = yaml.load(path.read_text(encoding="utf-8"))
    change(params)
    Params.model_validate(params)
    text = io.StringIO()
    yaml.dump(params, text)
    write_text(path, text.getvalue())


def rewrite(overrides: Any, path: Path = PARAMS) -> None:
    """Write what differs, nested as in the file, into `params.yaml`."""
    edit(lambda params: merge(params, overrides), path)


def apply_profile(name: str) -> None:
    """Rewrite `params.yaml` with what a profile overrides; `git diff` shows what changed."""
    path = PROFILES / f"{name}.yaml"
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise UserError(f"there is no profile {name!r}; take one of: {names}")
    rewrite(YAML().load(path.read_text(encoding="utf-8")))
    print(f"{PARAMS} now holds the profile {name!r}; `git checkout {PARAMS}` takes it back")
