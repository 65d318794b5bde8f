"""Changes that no gate may fire on."""

import random
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.planted.case import ASK, GATE, LOCK, PACK, REPRO, TIME, Case
from benchmarks.planted.contract import gates
from benchmarks.planted.data import rewrite
from benchmarks.planted.world import edit_params


def shuffled(rows: list[dict]) -> list[dict]:
    random.Random(7).shuffle(rows)
    return rows


def renamed_document(folder: Path) -> None:
    (folder / "task" / "DATASHEET.md").rename(folder / "task" / "ABOUT.md")


def comments_in_gate(folder: Path) -> None:
    path = folder / "slm" / "verdict" / "gate.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n# A thought.\n", encoding="utf-8")


def comments_in_stage(folder: Path) -> None:
    path = folder / "pipeline" / "package.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n# A thought.\n", encoding="utf-8")


def comments_in_contract(folder: Path) -> None:
    path = folder / "gates.yaml"
    path.write_text(f"# Why these limits are what they are.\n{path.read_text(encoding='utf-8')}# The end.\n", encoding="utf-8")


def windows_lines(folder: Path) -> None:
    path = folder / "README.md"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def other_key_order(folder: Path) -> None:
    yaml = YAML(typ="safe")
    path = folder / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    turned = {k: dict(reversed(v.items())) if isinstance(v, dict) else v for k, v in reversed(params.items())}
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        yaml.dump(turned, stream)


def nothing(folder: Path) -> None:
    pass


def params(**changes: dict) -> object:
    return lambda folder: edit_params(folder, **changes)


REMADE = (("dvc", "repro", "--force", "--single-item", "evaluate@int4"), REPRO)
CASES = [
    Case("nothing at all", "harmless", nothing, run=(REPRO,), doors=(GATE, LOCK)),
    Case("document renamed", "harmless", renamed_document),
    Case("comment in the gate's code", "harmless", comments_in_gate),
    Case("comment in a stage's code", "harmless", comments_in_stage, run=(REPRO,)),
    Case("comments in the contract", "harmless", comments_in_contract),
    Case("stricter contract", "harmless", gates(r"(name: valid answers.*at_least: )[0-9.]+", r"\g<1>0.86")),
    Case("Windows line ends in a document", "harmless", windows_lines),
    Case("other key order in params.yaml", "harmless", other_key_order, run=(REPRO,), doors=(GATE, LOCK)),
    Case("evaluated again", "harmless", nothing, run=REMADE),
    Case("asked, timed and packed again", "harmless", nothing, run=(ASK, TIME, PACK)),
    Case("more threads timed", "harmless", params(measure={"threads": [1, 2]}), run=(REPRO,)),
    Case("more rounds timed", "harmless", params(measure={"rounds": 2}), run=(REPRO,)),
    Case("package renamed", "harmless", params(package={"name": "lamp-and-lock"}), run=(REPRO,)),
    Case("more prompts timed", "harmless", params(measure={"prompts": 8}), run=(REPRO,)),
    Case("training data in another order", "harmless", rewrite("train", shuffled), run=(REPRO,)),
    Case("another seed", "harmless", params(seed=1), run=(REPRO,)),
]
