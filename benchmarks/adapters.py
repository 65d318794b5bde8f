"""Several jobs, one model: an adapter for each job, these merged into one, or one training run for all of them?

    PROJECT/.venv/bin/python benchmarks/adapters.py PROJECT          (make bench-adapters; after make demo; twenty minutes)

The base model with the task's vocabulary learns the default task's functions as four jobs, from people's labels; all ways take as many steps in all. Prints
loss (cross-entropy of an answer's tokens, nats, the mean over requests) and exact match over the validation set. With an adapter each, every request goes to
the adapter of its own job, which nobody tells a device: it is the most that such a router could reach.

Before that, one training run with phrases as tokens: for all weights, by an adapter that trains the phrases' rows too, and by one that does not. A token says more there, so
that loss compares only among these three. The jobs' adapters go without phrases: what to do with rows that each has trained, no way of merging says.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).parent.parent
PROJECT = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else TEMPLATE
sys.path.insert(0, str(PROJECT))
OUTPUT = TEMPLATE / "build" / "bench" / "adapters.json"
JOBS = {
    "home": ("set_light", "set_blinds", "set_temperature", "set_lock", "run_appliance"),
    "time": ("set_timer", "set_alarm", "set_reminder", "get_weather"),
    "media": ("play_media", "control_media", "set_volume"),
    "words": ("add_to_list", "send_message", "get_status", "none"),
}
# Of PEFT: sums; TIES (arXiv 2306.01708) and DARE (arXiv 2311.03099) keep a part of each and settle what contradicts.
MERGES: dict[str, dict[str, Any]] = {
    "sum": {"combination_type": "cat"},
    "mean": {"combination_type": "cat", "weight": 1 / len(JOBS)},
    "TIES": {"combination_type": "ties_svd", "density": 0.5, "svd_rank": 128, "svd_full_matrices": False},
    "DARE and TIES": {"combination_type": "dare_ties_svd", "density": 0.5, "svd_rank": 128, "svd_full_matrices": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="a default project whose model is made")
    parser.add_argument("--steps", type=int, default=160, help="of the default batch size, in all")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as scratch:  # checkpoints and curves stay out of the project
        for name in ("task", "models", "params.yaml"):
            os.symlink(PROJECT / name, Path(scratch) / name)
        os.chdir(scratch)
        figures = compared(steps)
        os.chdir(TEMPLATE)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")


def compared(steps: int) -> dict[str, float]:
    from peft import PeftModel
    from slm.config.params import load_params
    from slm.modeling.checkpoints import adapt, load_model, load_tokenizer
    from slm.modeling.encoding import collate, encode_example, encode_prompt
    from slm.modeling.generation import generate
    from slm.modeling.loss import answer_loss
    from slm.modeling.vocabulary import write_task_model
    from slm.task.answers import class_of
    from slm.task.definition import load_task
    from slm.task.metrics import score_one
    from slm.task.records import TASK, fixed_sample, read_prompts, read_records
    from slm.training.trainer import TrainingRun, train
    from torch import inference_mode

    params, task = load_params(), load_task()
    whole = params.teach.model_copy(update={"epochs": 1.0, "save_steps": 10**6, "patience": None})
    lora = whole.model_copy(update={"method": "lora", "rank": 32, "learning_rate": 5 * whole.learning_rate})
    job_of = {name: job for job, names in JOBS.items() for name in names}
    labelled, validation = (read_records(TASK / f"{split}.jsonl", answered=True) for split in ("train", "validation"))
    jobs = {job: [r for r in labelled if job_of[class_of(task, r.answer) or ""] == job] for job in JOBS}
    asked = {job: [r for r in validation if job_of[class_of(task, r.answer) or ""] == job] for job in JOBS}
    if any(len(records) < steps // len(JOBS) * whole.batch_size for records in jobs.values()):
        raise SystemExit(f"the smallest job has {min(map(len, jobs.values()))} labels: take fewer --steps")
    others = [*validation, *read_prompts()]
    phrased = write_task_model(Path("models/base"), Path("phrased").resolve(), params, labelled, others)
    without = params.model_copy(update={"models": params.models.model_copy(update={"phrases": 0})})
    start = write_task_model(Path("models/base"), Path("base").resolve(), without, labelled, others)

    def training(name: str, start: Path, settings: Any, records: list[Any], count: int, rows: bool = True) -> tuple[Any, float]:
        """The taught model, and the seconds it took; rows: the phrases' rows are trained too."""
        tokenizer = load_tokenizer(start)
        examples = [encode_example(tokenizer, r) for r in fixed_sample(records, count * settings.batch_size, params.seed)]
        model = adapt(start, settings, params)
        for weight in [] if rows else [w for n, w in model.named_parameters() if "trainable_tokens" in n]:
            weight.requires_grad = False
        began = time.perf_counter()
        trained = train(TrainingRun("adapters", name, settings, params), model, tokenizer, examples)
        return trained.model, time.perf_counter() - began

    @inference_mode()
    def judged(model: Any, records: list[Any], start: Path = start) -> tuple[list[float], list[float]]:
        """Of each record: whether its answer is right, and the mean loss of its answer's tokens."""
        tokenizer = load_tokenizer(start)
        model.eval()
        said = dict(generate(model, tokenizer, [encode_prompt(tokenizer, r.prompt) for r in records], params.evaluate.batch_size,
                             params.evaluate.max_new_tokens))  # fmt: skip
        losses = []
        for record in records:
            batch = {n: v.to(model.device) for n, v in collate([encode_example(tokenizer, record)], tokenizer.pad_token_id).items()}
            keep = batch["labels"].shape[1] + 1
            out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], logits_to_keep=keep, use_cache=False)
            losses.append(answer_loss(out.logits[:, :-1], batch, 0.0).item())
        return [score_one(task, r.answer, said[i].text)["score"] for i, r in enumerate(records)], losses

    figures: dict[str, float] = {"steps": steps}
    print(f"{'':44s}{'loss':>8s}{'exact':>8s}{'seconds':>9s}")

    def say(name: str, found: list[tuple[list[float], list[float]]], seconds: float) -> None:
        exact, loss = (statistics.mean(v for part in found for v in part[i]) for i in (0, 1))
        figures.update({f"{name}, loss": loss, f"{name}, exact": exact, f"{name}, seconds": seconds})
        print(f"{name:44s}{loss:8.3f}{exact:8.3f}{seconds:9.0f}", flush=True)

    for name, settings, rows in (
        ("phrases as tokens: all weights", whole, True),
        ("phrases as tokens: one adapter", lora, True),
        ("the same, the phrases' rows as they began", lora, False),
    ):
        model, took = training(name, phrased, settings, labelled, steps, rows)
        say(name, [judged(model, validation, phrased)], took)

    print()
    model, took = training("all", start, lora, labelled, steps)
    say("one adapter for all jobs", [judged(model, validation)], took)

    took = 0.0
    for job, records in jobs.items():
        model, seconds = training(job, start, lora, records, steps // len(JOBS))
        model.save_pretrained(job)
        took += seconds
    first, *others = JOBS
    model = PeftModel.from_pretrained(load_model(start, params), first, adapter_name=first)
    for job in others:
        model.load_adapter(job, adapter_name=job)
    found = []
    for job in JOBS:
        model.set_adapter(job)
        found.append(judged(model, asked[job]))
    say("an adapter for each job, asked its own", found, took)
    for name, options in MERGES.items():
        weight = options.get("weight", 1.0)
        given = {k: v for k, v in options.items() if k != "weight"}
        model.add_weighted_adapter(list(JOBS), [weight] * len(JOBS), name, **given)
        model.set_adapter(name)
        say(f"these merged into one: {name}", [judged(model, validation)], took)
    return figures


if __name__ == "__main__":
    main()
