"""What genai_config.json of a package may hold: each key with the form of its value.

The runtime obeys this file. Some of its names are templates that it formats, other keys name libraries,
devices or files. So a key that is not here is refused, and so is a value of another form.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from slm.errors import UserError
from slm.verdict.untrusted import quoted

LARGEST_VOCABULARY = 1 << 21
LONGEST_CONTEXT = 1 << 24
# Families of text models that the runtime knows (its src/models/model_type.h).
Family = Literal[
    "chatglm", "decoder", "ernie4_5", "gemma", "gemma2", "gemma3_text", "gemma4_text", "gpt2",
    "gptoss", "granite", "hunyuandensev1", "internlm2", "llama", "mistral", "nemotron", "olmo",
    "phi", "phi3", "phi3small", "phimoe", "qwen2", "qwen3", "qwen3_5_text", "qwen3_5_moe_text",
    "smollm3",
]  # fmt: skip
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./]{1,60}$")]
# One tensor for each layer: the runtime puts the layer's number in place of %d, in 64 bytes.
NameByLayer = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./]{0,25}%d[A-Za-z0-9_./]{0,25}$")]
Size = Annotated[int, Field(ge=1, le=1 << 17)]
SmallSize = Annotated[int, Field(ge=1, le=1 << 12)]
Few = Annotated[int, Field(ge=1, le=16)]
TokenId = Annotated[int, Field(ge=0, lt=LARGEST_VOCABULARY)]
Length = Annotated[int, Field(ge=0, le=LONGEST_CONTEXT)]
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class ConfigPart(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SessionOptions(ConfigPart):
    log_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = ""
    provider_options: Annotated[list[Any], Field(max_length=0)] = []


class Inputs(ConfigPart):
    input_ids: Name = ""
    attention_mask: Name = ""
    position_ids: Name = ""
    past_key_names: NameByLayer = ""
    past_value_names: NameByLayer = ""


class Outputs(ConfigPart):
    logits: Name = ""
    present_key_names: NameByLayer = ""
    present_value_names: NameByLayer = ""


class SlidingWindow(ConfigPart):
    window_size: Length
    pad_value: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = 0
    alignment: Literal["left", "right"] = "right"
    slide_key_value_cache: bool = True
    slide_inputs: bool = True
    layers: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 12)]], Field(max_length=1 << 12)] = []
    cache_slack: Length = 0


class Decoder(ConfigPart):
    session_options: SessionOptions = SessionOptions()
    filename: Literal["model.onnx"]
    head_size: Size = 1
    hidden_size: Size = 1
    num_attention_heads: SmallSize = 1
    num_hidden_layers: SmallSize = 1
    num_key_value_heads: SmallSize = 1
    inputs: Inputs = Inputs()
    outputs: Outputs = Outputs()
    sliding_window: SlidingWindow | None = None


class LanguageModel(ConfigPart):
    type: Family
    context_length: Annotated[int, Field(ge=1, le=LONGEST_CONTEXT)]
    vocab_size: Annotated[int, Field(ge=1, le=LARGEST_VOCABULARY)]
    bos_token_id: TokenId = 0
    eos_token_id: Annotated[list[TokenId], Field(min_length=1, max_length=64), BeforeValidator(_as_list)]
    pad_token_id: TokenId = 0
    decoder: Decoder


class SearchOptions(ConfigPart):
    diversity_penalty: Number = 0
    do_sample: bool = False
    early_stopping: bool = True
    length_penalty: Number = 1
    max_length: Length = 0
    min_length: Length = 0
    no_repeat_ngram_size: Length = 0
    num_beams: Few = 1
    num_return_sequences: Few = 1
    past_present_share_buffer: bool = False
    repetition_penalty: Number = 1
    temperature: Number = 1
    top_k: Length = 0
    top_p: Number = 1
    random_seed: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = 0


class GenAIConfig(ConfigPart):
    model: LanguageModel
    search: SearchOptions = SearchOptions()


def check_genai_config(value: Any) -> None:
    """Refuse what is not in the classes above.

    Args:
        value: genai_config.json, as it is read.

    Raises:
        UserError: names the key and the value.
    """
    try:
        GenAIConfig.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = quoted(".".join(str(part) for part in first["loc"]) or "the file")
        if first["type"] == "extra_forbidden":
            message = f"{where} is not allowed in a package"
        elif first["type"] == "missing":
            message = f"{where} is missing"
        else:
            message = (
                f"{where} is {quoted(first['input'])}, which is not allowed in a package: {first['msg']}"
            )
        raise UserError(f"genai_config.json: {message}") from None
