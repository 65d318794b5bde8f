"""The student's training beside TRL's: same student, same examples in batches of the same size, same number of steps.

    python -m benchmarks.peer build/my-slm      (part of make bench-student; for any project whose model is made)

Four students start from the same pruned teacher: ours as it is trained (the teacher's distribution, weights rounded), ours by cross-entropy alone
and not rounded (what SFTTrainer does), SFTTrainer's, and that of TRL's DistillationTrainer, which learns on policy: the student answers the same prompts
and the teacher, asked in every step, corrects it. Prints tokens a second (of the given examples, also where the student writes its own) and exact match on
validation data of each. TRL is put into a folder of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PACKAGES = ["trl==1.16.0", "datasets==5.2.0", "pyarrow>=21", "multiprocess", "dill", "xxhash"]
STEPS = 240  # of a batch each
READ = ("task", "models", "data", "reports", "params.yaml")


def compare(project: Path, steps: int = STEPS) -> dict[str, float]:
    """Figures by the project's own code, in its own environment."""
    # Inside the environment, as a folder of its own: outside, dill takes its packages for the user's code and cannot pickle them.
    folder = project / ".venv" / "trl"
    binaries = project / ".venv" / ("Scripts" if os.name == "nt" else "bin")
    if not (folder / "trl").exists():
        given = ["pip", "install", "--quiet", "--python", binaries / "python", "--no-deps", "--target", folder, *PACKAGES]
        subprocess.run([binaries / "uv", *given], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in READ:
            os.symlink(project / name, Path(scratch) / name)
        variables = {"PYTHONPATH": f"{project}{os.pathsep}{folder}", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [binaries / "python", Path(__file__).resolve(), "--inside", "--steps", str(steps), project],
            cwd=scratch, env=os.environ | variables, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def inside(steps: int) -> dict[str, float]:
    from datasets import Dataset
    from slm.chat import IGNORE, collate, encode_example, encode_prompt
    from slm.files import read_json
    from slm.generation import generate
    from slm.models import load_model, load_tokenizer
    from slm.params import load_params
    from slm.pruning import keep_layers, keep_neurons
    from slm.records import TASK, fixed_sample, read_records
    from slm.scoring import score_one
    from slm.synthetic import encode_synthetic, read_synthetic
    from slm.task import load_task
    from slm.training import train
    from trl import DistillationConfig, DistillationTrainer, SFTConfig, SFTTrainer

    params, task, teacher = load_params(), load_task(), Path("models/teacher")
    tokenizer, settings = load_tokenizer(teacher), params.distill
    synthetic = read_synthetic(Path("data/synthetic.jsonl"), Path("data/logprobs.npz"))
    examples = [encode_synthetic(tokenizer, *row) for row in synthetic]
    examples += [encode_example(tokenizer, r) for r in read_records(TASK / "train.jsonl", answered=True)]
    examples = fixed_sample(examples, steps * settings.batch_size, params.seed)
    settings = settings.model_copy(update={"epochs": 1.0, "save_steps": 10 * steps, "patience": None})
    tokens = sum(len(e["prompt_ids"]) + len(e["answer_ids"]) for e in examples)
    validation = read_records(TASK / "validation.jsonl", answered=True)

    probe = collate(
        [encode_example(tokenizer, r) for r in fixed_sample(validation, settings.probe_examples, params.seed)], tokenizer.pad_token_id
    )

    def pruned() -> Any:
        model = load_model(teacher, params)
        keep_layers(model, read_json(Path("reports/distill.json"))["layers"])
        if settings.neurons:
            keep_neurons(model, probe, settings.neurons)
        return model

    def score(model: Any) -> float:
        prompts = [encode_prompt(tokenizer, r.prompt) for r in validation]
        said = dict(generate(model, tokenizer, prompts, params.evaluate.batch_size, params.evaluate.max_new_tokens))
        return sum(score_one(task, r.answer, said[i].text)["score"] for i, r in enumerate(validation)) / len(validation)

    def ours(name: str, kl_weight: float, rounded: bool) -> Any:
        model = pruned()
        chosen = settings if rounded else settings.model_copy(update={"rounding": None})
        start = time.perf_counter()
        train(name, model, tokenizer, examples, chosen, params, {"peer": name}, Path(f"{name}.json"), kl_weight)
        return model, time.perf_counter() - start

    common = {
        "num_train_epochs": 1, "per_device_train_batch_size": settings.batch_size, "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_share, "lr_scheduler_type": "linear", "weight_decay": 0.0, "max_grad_norm": 1.0, "optim": "adamw_torch_fused",
        "save_strategy": "no", "report_to": [], "seed": params.seed, "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
    }  # fmt: skip

    def sft() -> Any:
        model = pruned()
        rows = [
            {"input_ids": e["prompt_ids"] + e["answer_ids"], "labels": [IGNORE] * len(e["prompt_ids"]) + e["answer_ids"]} for e in examples
        ]
        config = SFTConfig(output_dir="sft", dataset_kwargs={"skip_prepare_dataset": True}, **common)
        start = time.perf_counter()
        SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()
        return model, time.perf_counter() - start

    def on_policy() -> Any:
        model = pruned()
        rows = [{"prompt": tokenizer.decode(e["prompt_ids"])} for e in examples]
        assert all(tokenizer(r["prompt"])["input_ids"] == e["prompt_ids"] for r, e in zip(rows, examples, strict=True))
        config = DistillationConfig(output_dir="on-policy", max_completion_length=params.evaluate.max_new_tokens, **common)
        start = time.perf_counter()
        given = {"args": config, "train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
        DistillationTrainer(model=model, teacher_model=load_model(teacher, params), **given).train()
        return model, time.perf_counter() - start

    figures: dict[str, float] = {"tokens": tokens, "steps": steps}
    for name, make in {
        "ours": lambda: ours("ours", settings.kl_weight, True),
        "ours_plain": lambda: ours("plain", 0.0, False),
        "sft": sft,
        "on_policy": on_policy,
    }.items():
        model, seconds = make()
        figures |= {f"{name}_tokens_per_s": tokens / seconds, f"{name}_score": score(model)}
    figures["trainer_ratio"] = figures["ours_plain_tokens_per_s"] / figures["sft_tokens_per_s"]
    figures["trainer_ratio_as_trained"] = figures["ours_tokens_per_s"] / figures["sft_tokens_per_s"]
    figures["distillation_ratio"] = figures["ours_tokens_per_s"] / figures["on_policy_tokens_per_s"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="a project whose model is made")
    parser.add_argument("--steps", type=int, default=STEPS, help="of eight examples each")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(inside(arguments.steps)))
        return
    for name, value in compare(arguments.project.resolve(), arguments.steps).items():
        print(f"{name:36s}{value:10.3f}")


if __name__ == "__main__":
    sys.exit(main())
