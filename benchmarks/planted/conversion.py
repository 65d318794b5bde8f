"""Faults of conversion: the shipped folder is wrong, and is asked, timed and packed as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.planted.case import COST, GATE, JUDGE, QUALITY, SHIP, Case
from benchmarks.planted.world import at, must, own, read_jsonl

INT4 = "models/int4"

# Programs run by the project's own Python, which has onnx.
EDIT = """
import sys, numpy as np, onnx
from onnx import numpy_helper
path, what = sys.argv[1], sys.argv[2]
model = onnx.load(path)
rng = np.random.default_rng(0)
for tensor in model.graph.initializer:
    if ".scales" not in tensor.name or "embed" in tensor.name:
        continue
    values = numpy_helper.to_array(tensor).copy()
    if what == "zero" and "layers.1" in tensor.name:
        values[:] = 0
    if what == "times eight" and "layers.0.mlp" in tensor.name:
        values *= 8
    if what == "rows swapped" and "qkv_proj" in tensor.name:
        values = values[::-1].copy()
    if what.startswith("worn"):
        values *= rng.normal(1, float(what.split()[1]), values.shape).astype(values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
for node in model.graph.node:
    for attribute in node.attribute:
        if what == "slow kernels" and attribute.name == "accuracy_level":
            attribute.i = 1
onnx.save(model, path)
"""


def weights(what: str, model: str = INT4) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        must(folder, "python", "-c", EDIT, str(own(at(folder, model)) / "model.onnx"), what)

    return plant


def settings(change: Callable[[dict[str, Any]], None], model: str = INT4) -> Callable[[Path], None]:
    """A plant that changes genai_config.json."""

    def plant(folder: Path) -> None:
        path = own(at(folder, model) / "genai_config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
        change(config)
        path.write_text(json.dumps(config, indent=4), encoding="utf-8")

    return plant


def template(text: str, model: str = INT4) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        own(at(folder, model) / "chat_template.jinja").write_text(text, encoding="utf-8", newline="\n")

    return plant


def tokenizer(change: Callable[[dict[str, Any]], None], model: str = INT4) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = own(at(folder, model) / "tokenizer.json")
        spec = json.loads(path.read_text(encoding="utf-8"))
        change(spec)
        path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")

    return plant


def other_end(config: dict[str, Any]) -> None:
    config["model"]["eos_token_id"] = 0


def penalty(config: dict[str, Any]) -> None:
    config["search"]["repetition_penalty"] = 1.6


def slow_settings(config: dict[str, Any]) -> None:
    config["search"]["past_present_share_buffer"] = False
    config["model"]["decoder"]["session_options"] |= {"graph_optimization_level": "ORT_DISABLE_ALL", "enable_mem_pattern": False}


def no_merges(spec: dict[str, Any]) -> None:
    """Single letters where the model knows words, as with a merges file that was left behind."""
    spec["model"]["merges"] = []


def no_digits(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"]["pretokenizers"] = [p for p in spec["pre_tokenizer"]["pretokenizers"] if p["type"] != "Digits"]


def fp32_as_int4(folder: Path) -> None:
    shutil.rmtree(folder / INT4)
    shutil.copytree(folder / "models" / "onnx", folder / INT4)


def untaught(folder: Path) -> None:
    """The folder of a model that was trained on something else: the teacher's first layers, in INT4, before any distillation."""
    program = (
        "from pathlib import Path; from slm.modeling.checkpoints import load_model, load_tokenizer, save_model; from slm.config.params import load_params;"
        "from slm.distillation.pruning import keep_layers; from slm.export.olive import run_recipe; p = load_params(); t = Path('models/teacher');"
        "m = load_model(t, p); keep_layers(m, [0, 1]); save_model(m, load_tokenizer(t), Path('models/untaught'));"
        "run_recipe(Path('recipes/int4.json'), Path('models/untaught'), Path('models/int4'))"
    )
    must(folder, "python", "-c", program)


# Small losses: each release is a little more worn than the one before, and each is let through when only the last is looked at.
STEP = 0.045


def three_small_losses(folder: Path) -> None:
    """The released model has lost twice what one release may lose unseen, the candidate loses it once more; the best is the healthy one.

    Each is a really worn model that really answers: wear is searched until the released one has lost enough and not too much.
    """
    entry = json.loads((folder / "released.json").read_text(encoding="utf-8"))
    healthy = entry["released"]["figures"]["score"]
    worn: dict[float, float] = {0.0: healthy}

    def score(wear: float) -> float:
        if wear not in worn:
            shutil.rmtree(folder / INT4)
            shutil.copytree(folder / "models" / "kept", folder / INT4)
            weights(f"worn {wear}")(folder)
            must(folder, "python", "-m", "pipeline.evaluate", "int4", "models/int4")
            worn[wear] = json.loads((folder / "reports/quality/int4.json").read_text(encoding="utf-8"))["score"]
        return worn[wear]

    def wear_for(goal: float) -> float:
        low, high = 0.0, 1.2
        for _ in range(5):
            middle = round((low + high) / 2, 4)
            low, high = (middle, high) if score(middle) > goal else (low, middle)
        return min(worn, key=lambda w: abs(worn[w] - goal))

    shutil.copytree(folder / INT4, folder / "models" / "kept")
    second, third = wear_for(healthy - 2 * STEP), wear_for(healthy - 3 * STEP)
    worn_score = worn.pop(second)
    assert score(second) == worn_score, "the same bytes answer the same"
    predictions = folder / "predictions" / "int4.jsonl"
    data = predictions.read_bytes()
    store = folder / ".cache" / "released"
    digest = must(folder, "sha256sum", "predictions/int4.jsonl").split()[0]
    (store / digest).write_bytes(data)
    entry["released"] |= {"predictions_sha256": digest, "folder_sha256": read_jsonl(predictions)[0]["folder_sha256"]}
    (folder / "released.json").write_text(json.dumps(entry, indent=2), encoding="utf-8")
    shutil.rmtree(folder / INT4)
    shutil.copytree(folder / "models" / "kept", folder / INT4)
    weights(f"worn {third}")(folder)
    print(f"    healthy {healthy:.3f}, released {worn_score:.3f} (wear {second}), candidate {worn[third]:.3f} (wear {third})")


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
)
NEWLINE = "{% for message in messages %}{{ '<|im_start|>' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
LLAMA = (
    "{% for message in messages %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ' }}{% endif %}"
)
SYSTEM = "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}" + CHATML
SYSTEM += "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

LOSES = ("not worse than released",)
BEYOND = (*QUALITY, *COST)


def case(
    name: str, plant: Callable[[Path], None], must: tuple[str, ...] = LOSES, may: tuple[str, ...] = BEYOND, doors: Any = (GATE,)
) -> Case:
    return Case(name, "conversion", plant, must, may, SHIP, doors)


CASES = [
    case("a layer's weights are zero", weights("zero")),
    case("a layer's scales times eight", weights("times eight")),
    case("scales in the wrong order", weights("rows swapped")),
    case("another training run's weights, asked", untaught),
    case("prompt with a newline more", template(NEWLINE)),
    case("another family's chat template", template(LLAMA)),
    case("base model's system prompt left in the template", template(SYSTEM)),
    case("tokenizer without its merges", tokenizer(no_merges)),
    case("wrong end token", settings(other_end), ("valid answers",)),
    case("repetition penalty left on", settings(penalty)),
    case("fp32 shipped as int4", fp32_as_int4, ("weights", "weights of released"), (*COST, *QUALITY), (GATE, JUDGE)),
    case("kernels without integer accumulation", weights("slow kernels"), ("time", "time of released"), BEYOND, (GATE, JUDGE)),
    case("slow runtime settings", settings(slow_settings), ("time", "package"), BEYOND, (GATE, JUDGE)),
    case("three releases that each lose a little", three_small_losses, ("not worse than best",), BEYOND),
]
