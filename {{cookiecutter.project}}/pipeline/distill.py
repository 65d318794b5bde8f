"""The student: the teacher's most important layers, trained on the teacher's answers."""

import tempfile
from pathlib import Path

from slm.config.params import load_params
from slm.distillation.pruning import choose_layers, keep_layers, keep_neurons
from slm.distillation.synthetic import encode_synthetic, read_synthetic
from slm.errors import UserError, stage
from slm.files import folder_sha256, sha256_file, sha256_json, write_json
from slm.modeling.checkpoints import load_model, load_tokenizer, parameters_m, save_model
from slm.modeling.encoding import collate, encode_example
from slm.modeling.vocabulary import write_task_model
from slm.progress import print_closing_line
from slm.task.augmentation import vary
from slm.task.definition import load_task
from slm.task.records import TASK, fixed_sample, read_prompts, read_records
from slm.training.distributed import launch_processes
from slm.training.early_stopping import validation_scorer
from slm.training.trainer import forget_checkpoints, train

# With an endpoint as the teacher there is no local one: the student then starts from the base model. It may
# have one of its own.
TEACHER, BASE, OWN = Path("models/teacher"), Path("models/base"), Path("models/own")
RECORDS = Path("data/synthetic.jsonl")
LOGPROBS = Path("data/logprobs.npz")
OUTPUT = Path("models/distilled")
FACTS = Path("reports/distill.json")
CURVE = Path("reports/curves/distill.json")


@stage
def main() -> None:
    params = load_params()
    if launch_processes("pipeline.distill", params):
        return
    settings = params.distill
    start = TEACHER if params.synthesize.teacher == "local" else BASE
    if params.models.student:
        start = OWN
    synthetic = read_synthetic(RECORDS, LOGPROBS)
    labelled = read_records(TASK / "train.jsonl", answered=True)
    validation = read_records(TASK / "validation.jsonl", answered=True)
    prompts = read_prompts()
    files = (
        RECORDS,
        LOGPROBS,
        *(TASK / name for name in ("train.jsonl", "validation.jsonl", "prompts.jsonl", "task.yaml")),
    )
    inputs = {path.as_posix(): sha256_file(path) for path in files} | {
        "augment": sha256_json(params.augment.model_dump())
    }

    with tempfile.TemporaryDirectory() as scratch:
        prepared = start
        if start != TEACHER:
            # Its tokens are others than the teacher's, whose distribution says nothing about them.
            synthetic = [(record, ids[:0], values[:0]) for record, ids, values in synthetic]
            others = [*validation, *prompts, *(record for record, _, _ in synthetic)]
            prepared = write_task_model(start, Path(scratch) / "base", params, labelled, others)
        inputs["start"] = folder_sha256(prepared)
        tokenizer, model = load_tokenizer(prepared), load_model(prepared, params)
    if settings.layers > model.config.num_hidden_layers:
        raise UserError(
            f"params.yaml: distill.layers is {settings.layers}, but {start} has {model.config.num_hidden_layers} layers; lower it"
        )
    if settings.neurons and settings.neurons > model.config.intermediate_size:
        raise UserError(
            f"params.yaml: distill.neurons is {settings.neurons}, but a layer of {start} has {model.config.intermediate_size}; lower it"
        )

    # Which layers and neurons: by what each is worth on validation data.
    probe = fixed_sample(validation, settings.probe_examples, params.seed)
    batch = collate([encode_example(tokenizer, r) for r in probe], tokenizer.pad_token_id)
    batch = {name: value.to(model.device) for name, value in batch.items()}
    kept, importance = choose_layers(model, batch, settings.layers, settings.probe_rounds)
    keep_layers(model, kept)
    if settings.neurons:
        keep_neurons(model, batch, settings.neurons)

    examples = [encode_synthetic(tokenizer, record, ids, values) for record, ids, values in synthetic]
    # Of the teacher's answers too: where it copied wrongly, the request does not hold the value, and nothing
    # is exchanged.
    varied = vary(
        [*labelled, *(record for record, _, _ in synthetic)], prompts, params.augment, params.seed
    )
    examples += [encode_example(tokenizer, record) for record in (*labelled, *varied)]
    model, facts = train(
        "distill",
        model,
        tokenizer,
        examples,
        settings,
        params,
        inputs,
        CURVE,
        settings.kl_weight,
        score=validation_scorer(tokenizer, load_task(), validation),
    )

    save_model(model, tokenizer, OUTPUT)
    facts |= {"layers": kept, "vocabulary": model.config.vocab_size, "parameters_m": parameters_m(model)}
    write_json(FACTS, facts | {"importance": importance})
    forget_checkpoints("distill")
    print_closing_line("distill", facts)


if __name__ == "__main__":
    main()
