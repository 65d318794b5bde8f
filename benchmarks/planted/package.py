"""Faults of the package, behind the back of the stages: what was judged is no longer what ships."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.planted.case import BYTES, CLAIMS, GATE, JUDGE, LOCK, Case
from benchmarks.planted.conversion import NEWLINE, no_digits, settings, slow_settings, template, tokenizer, weights
from benchmarks.planted.world import at, own

MODEL = "dist/*/model"


def flip_byte(folder: Path) -> None:
    path = own(at(folder, MODEL) / "model.onnx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap_weights(folder: Path) -> None:
    """The INT8 model's graph and weights under the INT4 model's name."""
    (at(folder, MODEL) / "model.onnx").unlink()
    shutil.copyfile(folder / "models" / "int8" / "model.onnx", at(folder, MODEL) / "model.onnx")


def add(name: str, text: str) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        (at(folder, MODEL) / name).write_text(text, encoding="utf-8")

    return plant


def custom_library(config: dict) -> None:
    config["model"]["decoder"]["session_options"]["custom_ops_library"] = "helper.so"


def no_sbom(folder: Path) -> None:
    at(folder, "dist/*/sbom.cdx.json").unlink()


def other_checksum(folder: Path) -> None:
    path = own(at(folder, "dist/*/SHA256SUMS"))
    text = path.read_text(encoding="utf-8")
    path.write_text(("1" if text[0] == "0" else "0") + text[1:], encoding="utf-8")


def other_archive(folder: Path) -> None:
    """The folder is right, and the archive that users download holds something else."""
    path = own(at(folder, "dist/*.tar.gz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def other_licence(folder: Path) -> None:
    """The bill of materials claims a freer licence than the base model has."""
    path = own(at(folder, "dist/*/sbom.cdx.json"))
    bom = json.loads(path.read_text(encoding="utf-8"))
    bom["metadata"]["component"]["licenses"] = [{"expression": "CC0-1.0"}]
    path.write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")


SCORED_AND_TIMED = BYTES[:2]
CASES = [
    Case("one byte of the package changed", "package", flip_byte, BYTES, CLAIMS),
    Case("weights of another model in the package", "package", swap_weights, BYTES, CLAIMS),
    Case("weights of the package worn after scoring", "package", weights("worn 0.2", MODEL), BYTES, CLAIMS),
    Case("tokenizer of the package without its digit splitter", "package", tokenizer(no_digits, MODEL), SCORED_AND_TIMED, CLAIMS),
    Case("chat template of the package changed", "package", template(NEWLINE, MODEL), SCORED_AND_TIMED, CLAIMS),
    Case("runtime settings of the package changed", "package", settings(slow_settings, MODEL), SCORED_AND_TIMED, CLAIMS),
    Case(
        "program beside the model",
        "package",
        add("helper.py", "print('hello')\n"),
        ("package", *SCORED_AND_TIMED),
        CLAIMS,
        (),
        (GATE, JUDGE),
    ),
    Case(
        "package names a library to load",
        "package",
        settings(custom_library, MODEL),
        ("package", *SCORED_AND_TIMED),
        CLAIMS,
        (),
        (GATE, JUDGE),
    ),
    Case("bill of materials missing", "package", no_sbom, ("refused: lock",), CLAIMS, (), (GATE, LOCK)),
    Case("checksum of a package file changed", "package", other_checksum, ("refused: lock",), CLAIMS, (), (GATE, LOCK)),
    Case("archive other than the folder", "package", other_archive, ("refused: lock",), CLAIMS, (), (GATE, LOCK)),
    Case("licence in the bill of materials changed", "package", other_licence, ("refused: lock",), CLAIMS, (), (GATE, LOCK)),
]
