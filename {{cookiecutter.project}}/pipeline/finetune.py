"""The student's last training run: people's labels, for all weights or for adapters that are merged."""

from pathlib import Path

from slm.config.params import load_params
from slm.files import read_json, replacing, write_json
from slm.modeling.checkpoints import adapt, load_tokenizer, merged, parameters_m, save_model
from slm.modeling.encoding import encode_example
from slm.progress import print_closing_line
from slm.stage import stage
from slm.task.definition import load_task
from slm.task.records import TASK, read_records
from slm.training.distributed import launch_processes
from slm.training.early_stopping import validation_scorer
from slm.training.resume import forget_checkpoints, resume_key
from slm.training.trainer import TrainingRun, train

STUDENT = Path("models/distilled")
OUTPUT = Path("models/finetuned")
ADAPTER = Path("models/adapter")
FACTS = Path("reports/finetune.json")
CURVE = Path("reports/curves/finetune.json")


@stage
def main() -> None:
    params = load_params()
    if launch_processes("pipeline.finetune", params):
        return

    # Read and encode people's labels
    records = read_records(TASK / "train.jsonl", answered=True)
    validation = read_records(TASK / "validation.jsonl", answered=True)
    tokenizer = load_tokenizer(STUDENT)
    examples = [encode_example(tokenizer, record) for record in records]

    # Train all weights, or adapters
    score = validation_scorer(tokenizer, load_task(), validation)
    run = TrainingRun("finetune", resume_key("finetune", params), params.finetune, params, score=score)
    trained = train(run, adapt(STUDENT, params.finetune, params), tokenizer, examples)
    write_json(CURVE, trained.curve)

    # Save the adapters as they are, where there are some
    with replacing(ADAPTER) as temporary:
        temporary.mkdir()
        if params.finetune.method != "full":
            trained.model.save_pretrained(temporary)
            # PEFT holds the modules as a set: their order would be another in each run, and so the bytes.
            config = read_json(temporary / "adapter_config.json")
            write_json(
                temporary / "adapter_config.json",
                config | {"target_modules": sorted(config["target_modules"])},
            )

    # Save the student, adapters merged, and its facts
    student = merged(trained.model, STUDENT, params.finetune, params)
    save_model(student, tokenizer, OUTPUT)
    write_json(FACTS, trained.facts | {"parameters_m": parameters_m(student)})
    forget_checkpoints("finetune")
    print_closing_line("finetune", trained.facts)


if __name__ == "__main__":
    main()
