"""The student: the teacher's most important layers, trained on the teacher's answers."""

import tempfile
from itertools import compress
from pathlib import Path
from typing import Any

from slm.config.params import Params, load_params
from slm.distillation.pruning import choose_layers, keep_layers, keep_neurons
from slm.distillation.synthetic import encode_synthetic, read_synthetic
from slm.errors import UserError
from slm.files import write_json
from slm.modeling.checkpoints import load_model, load_tokenizer, parameters_m, save_model
from slm.modeling.encoding import collate, encode_example
from slm.modeling.vocabulary import learnable, write_task_model
from slm.progress import print_closing_line
from slm.stage import stage
from slm.task.augmentation import vary
from slm.task.definition import load_task
from slm.task.records import TASK, Record, fixed_sample, read_prompts, read_records
from slm.training.distributed import launch_processes
from slm.training.early_stopping import validation_scorer
from slm.training.resume import forget_checkpoints, resume_key
from slm.training.trainer import TrainingRun, train

# With an endpoint as the teacher there is no local one: the student then starts from the base model. It may
# have one of its own.
TEACHER, BASE, OWN = Path("models/teacher"), Path("models/base"), Path("models/own")
RECORDS = Path("data/synthetic.jsonl")
LOGPROBS = Path("data/logprobs.npz")
OUTPUT = Path("models/distilled")
FACTS = Path("reports/distill.json")
CURVE = Path("reports/curves/distill.json")


def start_of(params: Params) -> Path:
    """The model that the student is made from."""
    if params.models.student:
        return OWN
    return TEACHER if params.synthesize.teacher == "local" else BASE


def prune(
    model: Any, tokenizer: Any, validation: list[Record], params: Params, start: Path
) -> tuple[list[int], list[dict[str, Any]]]:
    """Leave the layers and neurons that are worth most on validation data, in place.

    Returns:
        the kept layers, and what was measured to choose them.

    Raises:
        UserError: params.yaml asks for more of them than there are.
    """
    settings = params.distill
    if settings.layers > model.config.num_hidden_layers:
        raise UserError(
            f"params.yaml: distill.layers is {settings.layers}, but {start} has "
            f"{model.config.num_hidden_layers} layers; lower it"
        )
    if settings.neurons and settings.neurons > model.config.intermediate_size:
        raise UserError(
            f"params.yaml: distill.neurons is {settings.neurons}, but a layer of {start} has "
            f"{model.config.intermediate_size}; lower it"
        )
    probe = fixed_sample(validation, settings.probe_examples, params.seed)
    batch = collate([encode_example(tokenizer, r) for r in probe], tokenizer.pad_token_id)
    batch = {name: value.to(model.device) for name, value in batch.items()}
    kept, importance = choose_layers(model, batch, settings.layers, settings.probe_rounds)
    keep_layers(model, kept)
    if settings.neurons:
        keep_neurons(model, batch, settings.neurons)
    return kept, importance


@stage
def main() -> None:
    params = load_params()
    if launch_processes("pipeline.distill", params):
        return

    # Read the teacher's answers and people's labels
    synthetic = read_synthetic(RECORDS, LOGPROBS)
    labelled = read_records(TASK / "train.jsonl", answered=True)
    validation = read_records(TASK / "validation.jsonl", answered=True)
    prompts = read_prompts()

    # Load the model that the student starts from, its vocabulary cut down unless it is the teacher
    start = prepared = start_of(params)
    with tempfile.TemporaryDirectory() as scratch:
        if start != TEACHER:
            # Its tokens are others than the teacher's, whose distribution says nothing about them.
            synthetic = [(record, ids[:0], values[:0]) for record, ids, values in synthetic]
            others = [*validation, *prompts, *(record for record, _, _ in synthetic)]
            prepared = write_task_model(start, Path(scratch) / "base", params, labelled, others)
        key = resume_key("distill", params, prepared)
        tokenizer, model = load_tokenizer(prepared), load_model(prepared, params)

    # Keep the layers and neurons that are worth most
    kept, importance = prune(model, tokenizer, validation, params, start)

    # Encode the teacher's answers, people's labels, and variations of both
    kept_answers = list(compress(synthetic, learnable(tokenizer, [record for record, _, _ in synthetic])))
    left_out, synthetic = len(synthetic) - len(kept_answers), kept_answers
    examples = [encode_synthetic(tokenizer, record, ids, values) for record, ids, values in synthetic]
    # Of the teacher's answers too: where it copied wrongly, the request does not hold the value, and nothing
    # is exchanged.
    answered = [*labelled, *(record for record, _, _ in synthetic)]
    made = vary(answered, prompts, params.augment, params.seed)
    varied = list(compress(made, learnable(tokenizer, made)))
    examples += [encode_example(tokenizer, record) for record in (*labelled, *varied)]

    # Train on the teacher's distribution and on the answers themselves
    score = validation_scorer(tokenizer, load_task(), validation)
    run = TrainingRun("distill", key, params.distill, params, params.distill.kl_weight, score)
    trained = train(run, model, tokenizer, examples)
    student = trained.model

    # Save the student, its curve and its facts
    write_json(CURVE, trained.curve)
    save_model(student, tokenizer, OUTPUT)
    facts = trained.facts | {"layers": kept, "vocabulary": student.config.vocab_size}
    facts |= {"parameters_m": parameters_m(student), "left_out": left_out + len(made) - len(varied)}
    write_json(FACTS, facts | {"importance": importance})
    forget_checkpoints("distill")
    print_closing_line("distill", facts)


if __name__ == "__main__":
    main()
