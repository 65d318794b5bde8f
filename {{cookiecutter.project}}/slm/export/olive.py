"""Run a Microsoft Olive recipe in a process of its own.

Olive 0.13 builds with a module that onnxruntime-genai 0.16 moved. `python bootstrap.py` therefore puts
onnxruntime-genai 0.14.1 into a folder of its own (the overlay), and this file alone puts that folder on
Olive's path. What it builds is loaded by the current runtime. The overlay can go when Olive is newer than
0.13.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from slm.errors import UserError
from slm.files import read_json, replacing, write_json

OVERLAY = Path(sys.prefix) / "olive-overlay"

# What Olive leaves beside the model that no runtime reads.
LEFTOVERS = {
    "config.json",
    "generation_config.json",
    "model_config.json",
    "footprint.json",
    "output_footprint.json",
    "run_history.txt",
}


def run_recipe(recipe: Path, model: Path, output: Path) -> None:
    """Build the ONNX folder `output` from the Hugging Face folder `model`.

    Raises:
        UserError: Olive failed, or (it can exit 0 with nothing built) left no model.onnx; with the end of its
            log.
    """
    if not OVERLAY.exists():
        raise UserError(f"{OVERLAY}: the builder for Olive is missing; run `python bootstrap.py`")
    environment = os.environ | {
        "PYTHONPATH": str(OVERLAY),
        "HF_HUB_OFFLINE": "1",
        "OLIVE_DISABLE_TELEMETRY": "1",
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "built"
        environment["HF_HUB_CACHE"] = str(Path(scratch) / "hub")
        command = [sys.executable, "-m", "olive", "run", "--disable_telemetry"]
        command += ["--config", str(recipe.resolve()), "-m", str(model.resolve()), "-o", str(built)]
        # In the scratch folder, where Olive also keeps its own cache.
        done = subprocess.run(
            command,
            cwd=scratch,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        found = next(iter(sorted(built.rglob("model.onnx"))), None)
        if done.returncode or not found:
            log = "\n".join(done.stdout.splitlines()[-15:])
            raise UserError(
                f"{recipe}: Olive built nothing from {model} (exit code {done.returncode}). The end of its "
                f"log:\n{log}"
            )
        if not (found.parent / "genai_config.json").exists():
            raise UserError(f"{recipe}: Olive wrote no genai_config.json; a recipe needs a ModelBuilder pass")
        with replacing(output) as temporary:
            temporary.mkdir()
            for path in sorted(found.parent.iterdir()):
                if path.is_file() and path.name not in LEFTOVERS:
                    shutil.copyfile(path, temporary / path.name)
            pad_with_what_no_prompt_holds(temporary)
            draw_nothing(temporary)


def pad_with_what_no_prompt_holds(folder: Path) -> None:
    """Name a special token as padding that stands in no prompt.

    GenAI and Foundry Local attend to no padding token, wherever it stands. Often it is the end token, which
    also ends the user's message: the model would then be asked something else than it was taught.
    """
    config, tokenizer = read_json(folder / "genai_config.json"), read_json(folder / "tokenizer.json")
    settings, template = read_json(folder / "tokenizer_config.json"), folder / "chat_template.jinja"
    prompts = settings.get("chat_template", "")
    prompts += template.read_text(encoding="utf-8") if template.exists() else ""
    model = config["model"]
    ends = model["eos_token_id"] if isinstance(model["eos_token_id"], list) else [model["eos_token_id"]]
    held = {*ends, model.get("bos_token_id")}
    unused = [
        t["id"]
        for t in tokenizer["added_tokens"]
        if t["special"] and t["id"] not in held and t["content"] not in prompts
    ]
    if unused:
        model["pad_token_id"] = unused[0]
        write_json(folder / "genai_config.json", config)


def draw_nothing(folder: Path) -> None:
    """Give the search a seed. Without one GenAI seeds each request from the processor's own randomness, which
    took 12 ms here, as long as reading the prompt; a greedy answer draws nothing. Who samples passes a seed
    of their own, or gets the same answer to the same request.
    """
    config = read_json(folder / "genai_config.json")
    config["search"]["random_seed"] = 0
    write_json(folder / "genai_config.json", config)
