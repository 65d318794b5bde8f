"""The student's training beside TRL's: same student, same examples in batches of the same size, same number of steps.

    python -m benchmarks.peer build/my-slm      (part of make bench-student; for any project whose model is made)

Four students start from the same pruned teacher: ours as it is trained (the teacher's distribution, weights rounded), ours by cross-entropy alone
and not rounded (what SFTTrainer does), SFTTrainer's, and that of TRL's DistillationTrainer, which learns on policy: the student answers the same prompts
and the teacher, asked in every step, corrects it. They train by turns, in rounds that each go on with the student of the last: what else the machine does meets all four. Prints tokens a
second (of the given examples, also where the student writes its own) and exact match on validation data of each; a ratio is the median over the
rounds. TRL is put into a folder of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PACKAGES = ["trl==1.16.0", "datasets==5.2.0", "pyarrow>=21", "multiprocess", "dill", "xxhash"]
STEPS = 240  # of a batch each
ROUNDS = 4
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
    from slm.config.params import load_params
    from slm.distillation.pruning import keep_layers, keep_neurons
    from slm.distillation.synthetic import encode_synthetic, read_synthetic
    from slm.files import read_json
    from slm.modeling.checkpoints import load_model, load_tokenizer
    from slm.modeling.encoding import IGNORE, collate, encode_example, encode_prompt
    from slm.modeling.generation import generate
    from slm.task.definition import load_task
    from slm.task.metrics import score_one
    from slm.task.records import TASK, fixed_sample, read_records
    from slm.training.trainer import TrainingRun, train
    from trl import DistillationConfig, DistillationTrainer, SFTConfig, SFTTrainer

    params, task, teacher = load_params(), load_task(), Path("models/teacher")
    tokenizer, settings = load_tokenizer(teacher), params.distill
    synthetic = read_synthetic(Path("data/synthetic.jsonl"), Path("data/logprobs.npz"))
    examples = [encode_synthetic(tokenizer, *row) for row in synthetic]
    examples += [encode_example(tokenizer, r) for r in read_records(TASK / "train.jsonl", answered=True)]
    examples = fixed_sample(examples, steps * settings.batch_size, params.seed)
    settings = settings.model_copy(update={"epochs": 1.0, "save_steps": 10 * steps, "patience": None})
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

    def ours(model: Any, examples: list[dict[str, Any]], kl_weight: float, rounded: bool) -> None:
        chosen = settings if rounded else settings.model_copy(update={"rounding": None})
        name = f"peer-{time.time_ns()}"  # training of a name that is new starts at its beginning
        train(TrainingRun(name, name, chosen, params, kl_weight), model, tokenizer, examples)

    common = {
        "num_train_epochs": 1, "per_device_train_batch_size": settings.batch_size, "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_share, "lr_scheduler_type": "linear", "weight_decay": 0.0, "max_grad_norm": 1.0, "optim": "adamw_torch_fused",
        "save_strategy": "no", "report_to": [], "seed": params.seed, "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
    }  # fmt: skip

    def sft(model: Any, examples: list[dict[str, Any]]) -> None:
        rows = [
            {"input_ids": e["prompt_ids"] + e["answer_ids"], "labels": [IGNORE] * len(e["prompt_ids"]) + e["answer_ids"]} for e in examples
        ]
        config = SFTConfig(output_dir="sft", dataset_kwargs={"skip_prepare_dataset": True}, **common)
        SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()

    def on_policy(model: Any, examples: list[dict[str, Any]]) -> None:
        rows = [{"prompt": tokenizer.decode(e["prompt_ids"])} for e in examples]
        assert all(tokenizer(r["prompt"])["input_ids"] == e["prompt_ids"] for r, e in zip(rows, examples, strict=True))
        config = DistillationConfig(output_dir="on-policy", max_completion_length=params.evaluate.max_new_tokens, **common)
        given = {"args": config, "train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
        DistillationTrainer(model=model, teacher_model=load_model(teacher, params), **given).train()

    ways = {
        "ours": lambda model, examples: ours(model, examples, settings.kl_weight, True),
        "ours_plain": lambda model, examples: ours(model, examples, 0.0, False),
        "sft": sft,
        "on_policy": on_policy,
    }
    models, seconds = {name: pruned() for name in ways}, {name: [] for name in ways}
    for part in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way(models[name], examples[part::ROUNDS])
            seconds[name].append(time.perf_counter() - start)
            print(f"round {part + 1} of {ROUNDS}: {name} took {seconds[name][-1]:.0f} s", file=sys.stderr)

    def ratio(name: str, other: str) -> float:
        return statistics.median(b / a for a, b in zip(seconds[name], seconds[other], strict=True))

    tokens = sum(len(e["prompt_ids"]) + len(e["answer_ids"]) for e in examples)
    figures: dict[str, float] = {"tokens": tokens, "steps": steps, "rounds": ROUNDS}
    for name in ways:
        figures |= {f"{name}_tokens_per_s": tokens / sum(seconds[name]), f"{name}_score": score(models[name])}
    figures["trainer_ratio"] = ratio("ours_plain", "sft")
    figures["trainer_ratio_as_trained"] = ratio("ours", "sft")
    figures["distillation_ratio"] = ratio("ours", "on_policy")
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
