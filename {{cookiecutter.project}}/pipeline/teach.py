"""The local teacher: the base model, adapted to the task with people's labels."""

import tempfile
from itertools import compress
from pathlib import Path

from slm.config.params import Params, load_params
from slm.files import replacing, write_json
from slm.modeling.checkpoints import adapt, load_tokenizer, merged, parameters_m, save_model
from slm.modeling.encoding import encode_example
from slm.modeling.vocabulary import learnable, write_task_model
from slm.progress import print_closing_line
from slm.stage import stage
from slm.task.augmentation import vary
from slm.task.definition import load_task
from slm.task.records import TASK, read_prompts, read_records
from slm.training.distributed import launch_processes
from slm.training.early_stopping import validation_scorer
from slm.training.resume import forget_checkpoints, resume_key
from slm.training.trainer import TrainingRun, train

BASE = Path("models/base")
OUTPUT = Path("models/teacher")
FACTS = Path("reports/teach.json")
CURVE = Path("reports/curves/teach.json")


def note_endpoint(params: Params) -> None:
    """The teacher is elsewhere: leave a note in its place, which the later stages understand."""
    with replacing(OUTPUT) as temporary:
        endpoint = params.synthesize.endpoint
        write_json(temporary / "endpoint.json", {"base_url": endpoint.base_url, "model": endpoint.model})
    write_json(CURVE, [])
    write_json(FACTS, {"parameters_m": None})
    print_closing_line("teach", {"skipped": "the teacher is an endpoint"})


@stage
def main() -> None:
    params = load_params()
    if launch_processes("pipeline.teach", params):
        return
    if params.synthesize.teacher == "endpoint":
        return note_endpoint(params)

    # Read people's labels
    labelled = read_records(TASK / "train.jsonl", answered=True)
    validation = read_records(TASK / "validation.jsonl", answered=True)
    prompts = read_prompts()

    with tempfile.TemporaryDirectory() as scratch:
        # Cut the base model's vocabulary down to the task
        start = Path(scratch) / "base"
        write_task_model(BASE, start, params, labelled, others=[*validation, *prompts])
        key = resume_key("teach", params, start)

        # Encode the labels and their variations
        tokenizer = load_tokenizer(start)
        made = vary(labelled, prompts, params.augment, params.seed)
        varied = compress(made, learnable(tokenizer, made))
        examples = [encode_example(tokenizer, record) for record in [*labelled, *varied]]

        # Train all weights, or adapters that are then merged
        score = validation_scorer(tokenizer, load_task(), validation)
        run = TrainingRun("teach", key, params.teach, params, score=score)
        trained = train(run, adapt(start, params.teach, params), tokenizer, examples)
        model = trained.model
        teacher = merged(model, start, params.teach, params)

    # Save the teacher, its curve and its facts
    write_json(CURVE, trained.curve)
    save_model(teacher, tokenizer, OUTPUT)
    write_json(FACTS, trained.facts | {"parameters_m": parameters_m(teacher)})
    forget_checkpoints("teach")
    print_closing_line("teach", trained.facts)


if __name__ == "__main__":
    main()
