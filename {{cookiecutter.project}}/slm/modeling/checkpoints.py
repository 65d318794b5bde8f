"""Load and save Hugging Face model folders, adapters included."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from slm.config.params import Adapted, Params
from slm.errors import UserError
from slm.files import replacing


def device_of(params: Params) -> str:
    if params.compute.device == "cpu" or (params.compute.device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # each process has a GPU of its own


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_model(folder: Path, params: Params, **options: Any) -> PreTrainedModel:
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no model here (config.json is missing); run `slm repro`, which makes it")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, **options
    )
    return model.to(device_of(params))


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a complete model folder, or nothing."""
    with replacing(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def parameters_m(model: PreTrainedModel) -> float:
    """Millions of parameters, tied weights counted once."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def map_rows(model: PreTrainedModel, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Give a model another vocabulary, in place: `change` makes the new embedding [tokens, width] of the old
    one, and the head's likewise.
    """
    tied = model.config.tie_word_embeddings
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    embedding.weight = torch.nn.Parameter(change(embedding.weight.data).clone())
    head.weight = embedding.weight if tied else torch.nn.Parameter(change(head.weight.data).clone())
    embedding.padding_idx = None
    embedding.num_embeddings = head.out_features = model.config.vocab_size = model.vocab_size = len(
        embedding.weight
    )


def adapt(folder: Path, settings: Adapted, params: Params) -> Any:
    """Load a model for training: all of it, or adapters, for QLoRA (arXiv 2305.14314) on weights that are
    held in 4 bits.
    """
    set_seed(params.seed)
    options: dict[str, Any] = {}
    if settings.method == "qlora":
        if find_spec("bitsandbytes") is None:
            raise UserError("params.yaml: method qlora needs bitsandbytes; run `slm extra qlora`")
        options["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = load_model(folder, params, **options)
    return model if settings.method == "full" else with_adapters(model, settings)


def with_adapters(model: PreTrainedModel, settings: Adapted) -> Any:
    """Adapters on every linear layer (LoRA, arXiv 2106.09685; DoRA, arXiv 2402.09353), and the rows of
    phrases: the base model never saw these tokens, and no linear layer holds their rows.
    """
    tokens, phrases = model.config.vocab_size, getattr(model.config, "phrases", 0)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = {
        name: list(range(tokens - phrases, tokens))
        for name, module in model.named_modules()
        if module in ends
    }
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        target_modules="all-linear",
        trainable_token_indices=rows if phrases else None,
        use_dora=settings.method == "dora",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def merged(model: Any, folder: Path, settings: Adapted, params: Params) -> PreTrainedModel:
    """The plain model: adapters merged into the (unquantized) weights they were trained on."""
    if settings.method == "full":
        return model
    if settings.method == "qlora":
        from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

        state = get_peft_model_state_dict(model)
        plain = PeftModel(load_model(folder, params), model.peft_config["default"])
        set_peft_model_state_dict(plain, state)
        return plain.merge_and_unload()
    return model.merge_and_unload()
