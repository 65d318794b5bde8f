"""How many answers change when the same package computes otherwise: what a device's tolerance has to allow.

    make bench-devices      (after make demo, in whose environment it runs; some minutes)

No other processor is at hand, and ONNX Runtime chooses its kernels by the processor alone. So what can be varied here is: the number of threads, the
graph's optimizations, and the arithmetic of the quantized products (sums of 8-bit integers, or of floats), in which processors differ most. Each
variant answers the same test requests as the package did when it was judged; Foundry Local, which brings a runtime of its own, a part of them. Writes build/bench/devices.json and prints the same as a table.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(sys.argv[1]).resolve()
OUTPUT = Path("build/bench/devices.json").resolve()
sys.path.insert(0, str(PROJECT))

import onnx  # noqa: E402
from slm.config.params import load_params  # noqa: E402
from slm.export import foundry  # noqa: E402
from slm.files import read_json, read_jsonl, write_json  # noqa: E402
from slm.inference.genai import GenAI  # noqa: E402
from statsmodels.stats.proportion import proportion_confint  # noqa: E402

EXAMPLES = 200
FOUNDRY = 50  # each in a process of its own


def unoptimized(folder: Path) -> None:
    path = folder / "genai_config.json"
    config = read_json(path)
    config["model"]["decoder"]["session_options"]["graph_optimization_level"] = "ORT_DISABLE_ALL"
    write_json(path, config)


def arithmetic(level: int) -> Callable[[Path], None]:
    """Accuracy level of MatMulNBits: 1 multiplies floats, 4 rounds the activations to 8 bits and multiplies integers."""

    def edit(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        for node in (n for n in model.graph.node if n.op_type == "MatMulNBits"):
            kept = [a for a in node.attribute if a.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("accuracy_level", level)])
        onnx.save(model, folder / "model.onnx")

    return edit


VARIANTS: dict[str, tuple[int, Callable[[Path], None] | None]] = {
    "as judged": (1, None),
    "2 threads": (2, None),
    "4 threads": (4, None),
    "graph not optimized": (1, unoptimized),
    "products of floats": (1, arithmetic(1)),
    "products of 8-bit integers": (1, arithmetic(4)),
}


def main() -> None:
    os.chdir(PROJECT)
    params = load_params()
    package = Path("dist") / params.package.name / "model"
    rows = [r for r in read_jsonl(Path("predictions") / f"{params.package.variant}.jsonl")[1:] if not r["cut"]]
    rows = rows[:: max(1, len(rows) // EXAMPLES)][:EXAMPLES]
    figures: dict[str, float] = {"examples": len(rows)}

    def say(name: str, answers: list[str]) -> None:
        flipped, asked = sum(a != r["answer"] for a, r in zip(answers, rows, strict=False)), len(answers)
        high = float(proportion_confint(flipped, asked, alpha=0.10, method="beta")[1])
        figures.update({f"{name}: flipped": flipped / asked, f"{name}: at most": high})
        print(f"{name:32s}{flipped:4d} of {asked} answers differ: {flipped / asked:.3f} (<= {high:.3f})", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        for name, (threads, edit) in VARIANTS.items():
            folder = Path(scratch) / "model"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(package, folder)
            if edit:
                edit(folder)
            runtime = GenAI(folder, threads)
            say(name, [runtime.ask(runtime.encode(r["messages"]), params.evaluate.max_new_tokens).text for r in rows])
            del runtime
    say("Foundry Local", [foundry.ask(package, r["messages"], params.evaluate.max_new_tokens) for r in rows[:FOUNDRY]])
    write_json(OUTPUT, {"figures": figures})


if __name__ == "__main__":
    main()
