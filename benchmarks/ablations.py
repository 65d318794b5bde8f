"""What each step of making a student is worth: one is changed, the rest and the number of training steps stay, and validation data judges.

    PROJECT/.venv/bin/python benchmarks/ablations.py PROJECT               (make bench-ablations; after make demo, whose teacher and answers it uses)
    PROJECT/.venv/bin/python benchmarks/ablations.py PROJECT --only "whole run" --steps 960      (as many as the default profile's student takes)

Every student is trained by the project's own code, short and from the same teacher, so that the table says which of two ways learns more from the
same steps, not how good a student can be. Prints loss (cross-entropy of an answer token, nats) and exact match on validation data, weights rounded
as trained. What was run before with the same settings is not run again: build/ablations.json.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).parent.parent
PROJECT = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else TEMPLATE
sys.path.insert(0, str(PROJECT))
OUTPUT, KEPT = TEMPLATE / "build" / "bench", TEMPLATE / "build" / "ablations.json"


@dataclass(frozen=True)
class Way:
    """One way to make a student; the defaults are ours, at the size of the full profile.

    groups: of query heads that share a key and value head, kept in each layer by what they say; None: all three.
    chosen: rounds (loss without a layer, measured again after each round), once, similarity (ShortGPT), block (the block in a row whose loss
        counts least goes, as in arXiv 2403.17887, but chosen by loss), even (every nth), first.
    probe, drawn: so many validation examples say which layers count, drawn by this seed.
    phrases: what answers repeat is single tokens, where the vocabulary is cut here.
    healed: of the steps, the share spent before the last half of the layers goes; 0: all go at once.
    loss: what kl_weight weighs. forward (ours), reverse (the teacher's and the student's places exchanged, as in MiniLLM, arXiv 2306.08543), skewed
        (the student's distribution mixed with a tenth of the teacher's, DistiLLM, arXiv 2402.03898), hidden (forward, and the layers' outputs are drawn
        to those of the same layers in the teacher, after TinyBERT, arXiv 1909.10351), attention (forward, and each head looks where the teacher's
        does, after MobileBERT, arXiv 2004.02984), sizes (cross-entropy, and the sorted probabilities are drawn to the teacher's, whose tokens are
        others: ULD, arXiv 2402.12030).
    asked: for which examples the teacher's distribution is known. synthetic (ours); all: on people's labels and variations too; own: on the answers
        that the student itself gives after half of the steps (GKD, arXiv 2306.13649).
    afterwards: weights are rounded in groups of so many only after all training runs.
    """

    layers: int = 14
    neurons: int | None = 704
    groups: int | None = None
    chosen: str = "rounds"
    probe: int = 12
    drawn: int = 0
    healed: float = 0.0
    start: str = "teacher"
    vocabulary: str = "task"
    phrases: bool = True
    data: tuple[str, ...] = ("labelled", "synthetic")
    kl_weight: float = 0.7
    loss: str = "forward"
    asked: str = "synthetic"
    group_size: int | None = 64
    afterwards: int | None = None
    method: str = "full"
    learning_rate: float = 4.0e-4
    seed: int = 0


OURS = Way()
OWN_TOKENS = replace(OURS, start="base", kl_weight=0.0, chosen="similarity")
CHOSEN: dict[tuple[Any, ...], list[int]] = {}  # many ways take the same layers of the same model, which takes as long as a training run
GROUPS: dict[str, dict[str, Way]] = {
    "shape": {
        "10 layers of 1152 neurons": replace(OURS, layers=10, neurons=1152),
        "8 layers of 1536": replace(OURS, layers=8, neurons=None),
        "12 layers of 832": replace(OURS, layers=12, neurons=832),
        "14 layers of 704": OURS,
        "14 layers of 832, two of three groups of heads": replace(OURS, neurons=832, groups=2),
        "16 layers of 704, two of three groups of heads": replace(OURS, layers=16, groups=2),
    },
    "layers": {
        "by loss without them, in rounds": OURS,
        "by loss, in one round": replace(OURS, chosen="once"),
        "by similarity of input and output": replace(OURS, chosen="similarity"),
        "all but one block in a row": replace(OURS, chosen="block"),
        "evenly spaced": replace(OURS, chosen="even"),
        "the first": replace(OURS, chosen="first"),
    },
    "examples by which layers are chosen": {
        "12": OURS,
        "12 others": replace(OURS, drawn=1),
        "12 others again": replace(OURS, drawn=2),
        "48": replace(OURS, probe=48),
    },
    "one step or two": {
        "all layers at once": OURS,
        "half of them, healing for a third of the steps, the rest": replace(OURS, healed=1 / 3),
    },
    "loss": {
        "0.7 teacher's distribution, 0.3 cross-entropy": OURS,
        "cross-entropy alone": replace(OURS, kl_weight=0.0),
        "teacher's distribution alone": replace(OURS, kl_weight=1.0),
        "reverse divergence": replace(OURS, loss="reverse"),
        "skewed divergence": replace(OURS, loss="skewed"),
        "and the teacher's hidden states": replace(OURS, loss="hidden"),
        "and what the teacher's heads look at": replace(OURS, loss="attention"),
        "the student's own answers, in the second half": replace(OURS, asked="own"),
    },
    "data": {
        "labels and the teacher's answers": OURS,
        "labels alone": replace(OURS, data=("labelled",)),
        "and variations of the labels": replace(OURS, data=("labelled", "synthetic", "varied")),
        "and of the teacher's answers": replace(OURS, data=("labelled", "synthetic", "varied", "answers varied")),
        "and the teacher's distribution on all of them": replace(
            OURS, data=("labelled", "synthetic", "varied", "answers varied"), asked="all"
        ),
    },
    "start": {"the taught teacher's layers": OURS, "the base model's layers": replace(OURS, start="base")},
    "vocabulary": {  # from the base model and by cross-entropy: the teacher's tokens are the task's. Similarity chooses the same layers for all
        "the task's, with phrases": OWN_TOKENS,
        "the task's": replace(OWN_TOKENS, phrases=False),
        "the base model's": replace(OWN_TOKENS, vocabulary="full"),
        "the base model's, and the teacher's probabilities by size": replace(OWN_TOKENS, vocabulary="full", loss="sizes"),
    },
    "rounding": {
        "4 bits, groups of 64": OURS,
        "4 bits, groups of 32": replace(OURS, group_size=32),
        "none": replace(OURS, group_size=None),
        "none, and 4 bits, groups of 64, afterwards": replace(OURS, group_size=None, afterwards=64),
    },
    "weights": {
        "all, no rounding": replace(OURS, group_size=None),
        "LoRA, rank 32, at five times the rate": replace(OURS, method="lora", group_size=None, learning_rate=2.0e-3),
    },
    "seed": {"0": OURS, "1": replace(OURS, seed=1), "2": replace(OURS, seed=2)},
    "whole run": {
        "ours": OURS,
        "another seed": replace(OURS, seed=1),
        "layers by similarity of input and output": replace(OURS, chosen="similarity"),
        "the same, another seed": replace(OURS, chosen="similarity", seed=1),
        "16 layers with two of three groups of heads": replace(OURS, layers=16, groups=2),
        "labels alone": replace(OURS, data=("labelled",)),
        "no rounding, and 4 bits, groups of 64, afterwards": replace(OURS, group_size=None, afterwards=64),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="a default project whose model is made")
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--steps", type=int, default=360, help="of the default batch size")
    arguments = parser.parse_args()
    scratch = tempfile.mkdtemp()  # checkpoints and curves stay out of the project
    for name in ("task", "models", "data", "params.yaml"):
        os.symlink(PROJECT / name, Path(scratch) / name)
    os.chdir(scratch)
    made: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    figures: dict[str, float] = {"steps": arguments.steps}
    for group in arguments.only:
        print(f"{group:60s}{'loss':>8s}{'exact':>8s}{'seconds':>9s}")
        for name, way in GROUPS[group].items():
            key = f"{arguments.steps} {way}"
            if key not in made:
                made[key] = student(way, arguments.steps)
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
            row = made[key]
            figures |= {f"{group}: {name}, {figure}": row[figure] for figure in ("loss", "exact", "seconds")}
            print(f"  {name:58s}{row['loss']:8.3f}{row['exact']:8.3f}{row['seconds']:9.0f}", flush=True)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / f"ablations-{arguments.steps}.json").write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")


def student(way: Way, steps: int) -> dict[str, Any]:
    from slm.config.params import Augment, Rounding, load_params
    from slm.distillation.pruning import keep_layers, keep_neurons
    from slm.distillation.synthetic import encode_synthetic, read_synthetic
    from slm.files import sha256_json
    from slm.modeling.checkpoints import load_model, load_tokenizer, with_adapters
    from slm.modeling.encoding import collate, encode_example, encode_prompt
    from slm.modeling.generation import generate
    from slm.modeling.loss import answer_loss
    from slm.modeling.qat import round_in_training
    from slm.modeling.vocabulary import write_task_model
    from slm.task.augmentation import vary
    from slm.task.definition import load_task
    from slm.task.metrics import score_one
    from slm.task.records import TASK, fixed_sample, read_prompts, read_records
    from slm.training.trainer import TrainingRun, train
    from torch import inference_mode
    from tried import by_place, keep_head_groups, layers_of, losses_of, with_teacher

    params = load_params().model_copy(update={"seed": way.seed})
    rounding = Rounding(bits=4, group_size=way.group_size) if way.group_size else None
    settings = params.distill.model_copy(
        update={"rounding": rounding, "learning_rate": way.learning_rate, "epochs": 1.0, "save_steps": 10**6, "patience": None}
    )
    folder, labelled = Path("models/teacher"), read_records(TASK / "train.jsonl", answered=True)
    validation, prompts = read_records(TASK / "validation.jsonl", answered=True), read_prompts()
    teacher = load_model(folder, params).eval()
    with tempfile.TemporaryDirectory() as scratch:
        named = {"vocabulary": way.vocabulary} | ({} if way.phrases else {"phrases": 0})
        cut = params.model_copy(update={"models": params.models.model_copy(update=named)})
        start = folder
        if way.start != "teacher":
            start = write_task_model(Path("models/base"), Path(scratch) / "base", cut, labelled, others=[*validation, *prompts])
        tokenizer, model = load_tokenizer(start), load_model(start, params)

    def batch(records: list[Any]) -> dict[str, Any]:
        return collate([encode_example(tokenizer, r) for r in records], tokenizer.pad_token_id)

    synthetic = read_synthetic(Path("data/synthetic.jsonl"), Path("data/logprobs.npz"))
    augment = Augment(variations=3, by="name")
    parts = {
        "labelled": [encode_example(tokenizer, r) for r in labelled],
        "synthetic": [by_place(encode_example(tokenizer, r), values) for r, _, values in synthetic]
        if way.loss == "sizes"
        else [encode_synthetic(tokenizer, *row) for row in synthetic],
        "varied": [encode_example(tokenizer, r) for r in vary(labelled, prompts, augment, way.seed)],
        "answers varied": [encode_example(tokenizer, r) for r in vary([r for r, _, _ in synthetic], prompts, augment, way.seed)],
    }
    pool = [e for name in way.data for e in parts[name]]
    wanted = steps * settings.batch_size
    # Fewer examples than steps are gone through again: what is equal is the steps.
    examples = (
        (fixed_sample(pool, len(pool), 0) * (wanted // len(pool) + 1))[:wanted]
        if len(pool) < wanted
        else fixed_sample(pool, wanted, way.seed)
    )

    if way.asked == "all":
        examples = [e if "topk_ids" in e else with_teacher(teacher, e, params.synthesize.top_k) for e in examples]
    probe = batch(fixed_sample(validation, way.probe, way.drawn))
    depth = model.config.num_hidden_layers
    took: list[float] = []

    def training(name: str, part: list[Any]) -> None:
        began = time.perf_counter()
        key = sha256_json([str(way), name, time.time()])  # training of a name that is new starts at its beginning
        train(TrainingRun(name, key, settings, params, way.kl_weight), model, tokenizer, part)
        took.append(time.perf_counter() - began)

    first = int(way.healed * steps) * settings.batch_size
    if first:
        keep_layers(model, layers_of(model, probe, (depth + way.layers) // 2, way.chosen))
        training("healing", examples[:first])
    key = (way.start, way.vocabulary, way.phrases, way.healed, way.layers, way.chosen, way.probe, way.drawn)
    kept = CHOSEN[key] = CHOSEN.get(key) or layers_of(model, probe, way.layers, way.chosen)
    keep_layers(model, kept)
    if way.neurons:
        keep_neurons(model, probe, way.neurons)
    if way.groups:
        keep_head_groups(model, probe, way.groups)
    if way.method == "lora":
        model = with_adapters(model, params.teach.model_copy(update={"method": "lora", "rank": 32}))
    if way.asked == "own":
        half = (steps // 2) * settings.batch_size
        training("ablation", examples[:half])
        asked = [e["prompt_ids"] for e in examples[half:]]
        own = dict(generate(model, tokenizer, asked, params.evaluate.batch_size, params.evaluate.max_new_tokens))
        answered = [{"prompt_ids": ids, "answer_ids": own[i].token_ids} for i, ids in enumerate(asked)]
        way = replace(way, kl_weight=1.0)  # the student's own answers are nothing to imitate
        examples = [with_teacher(teacher, e, params.synthesize.top_k) for e in answered]
        first = 0
    with losses_of(way.loss, teacher, kept):
        training("ablation", examples[first:])

    model.eval()
    if way.afterwards:
        round_in_training(model, Rounding(bits=4, group_size=way.afterwards))
    with inference_mode():
        losses = []
        for i in range(0, len(validation), 43):
            b = batch(validation[i : i + 43])
            out = model(
                input_ids=b["input_ids"], attention_mask=b["attention_mask"], logits_to_keep=b["labels"].shape[1] + 1, use_cache=False
            )
            losses.append(answer_loss(out.logits[:, :-1], b, 0.0).item())
    asked, task = [encode_prompt(tokenizer, r.prompt) for r in validation], load_task()
    said = dict(generate(model, tokenizer, asked, params.evaluate.batch_size, params.evaluate.max_new_tokens))
    exact = statistics.mean(score_one(task, r.answer, said[i].text)["score"] for i, r in enumerate(validation))
    return {"loss": statistics.mean(losses), "exact": exact, "seconds": sum(took)}


if __name__ == "__main__":
    main()
