"""Every parameter of `params.yaml`, typed once: name, unit and range are checked before anything runs."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cyclonedx.spdx import is_expression
from pydantic import AfterValidator, Field, model_validator

from slm.config.loader import Strict, load_yaml
from slm.config.synthesis import Synthesize

PARAMS = Path("params.yaml")
Rung = Literal["teacher", "base", "distilled", "finetuned", "onnx", "int8", "int4"]


class Wheel(Strict):
    name: str
    version: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the wheel file")
    gguf: str = Field(description="the model file inside the wheel")


class Hub(Strict):
    repo: str
    revision: str = Field(description="a commit, so that the model never changes under you")


def spdx(value: str) -> str:
    if value.startswith("LicenseRef-") or (value and is_expression(value)):
        return value
    raise ValueError("not an SPDX expression such as Apache-2.0, MIT or LicenseRef-name")


License = Annotated[str, AfterValidator(spdx)]


class OwnStudent(Hub):
    license: License


class Models(Strict):
    source: Literal["wheel", "hub"]
    wheel: Wheel
    hub: Hub
    license: License = Field(description="licence of the base model, an SPDX expression")
    student: OwnStudent | None = Field(
        None, description="model of the hub that the student starts from; null: the teacher's layers"
    )
    vocabulary: Literal["task", "full"] = Field(
        description="tokens of teacher and student: those that the task's texts need, or all"
    )
    phrases: int = Field(
        ge=0, le=4096, description="number of merges of answer tokens; needs vocabulary: task; 0: none"
    )
    context: int | None = Field(
        ge=64, description="longest request and answer together, in tokens; null: as the base model"
    )
    layers: int | None = Field(
        ge=1, description="keep only the first layers of the base model (tests); null: all"
    )


class Rounding(Strict):
    bits: int = Field(ge=2, le=8)
    group_size: int = Field(ge=16, le=1024, description="weights that share a scale, along the input")


class Training(Strict):
    epochs: float = Field(gt=0, le=100)
    batch_size: int = Field(ge=1, le=1024)
    learning_rate: float = Field(gt=0, le=0.1)
    warmup_share: float = Field(ge=0, le=0.5)
    save_steps: int = Field(ge=1, description="steps between checkpoints, from which a killed run resumes")
    patience: int | None = Field(
        None,
        ge=1,
        description="checkpoints without a better validation score before training stops; null: all epochs",
    )
    rounding: Rounding | None = Field(
        None, description="train with weights rounded as the shipped recipe will round them; null: off"
    )


class Adapted(Training):
    method: Literal["full", "lora", "dora", "qlora"]
    rank: int = Field(ge=1, le=512, description="LoRA rank; alpha is twice the rank")

    @model_validator(mode="after")
    def whole_weights(self) -> Self:
        if self.rounding and self.method != "full":
            raise ValueError(
                "rounding needs method: full, because adapters are added after the weights are rounded"
            )
        return self


class Augment(Strict):
    variations: int = Field(
        ge=0,
        le=100,
        description="variations of each labelled example and each teacher's answer, by free text of others",
    )
    by: str | None = Field(
        description="field of a JSON answer; free text moves between answers with the same value in it"
    )


class Distill(Training):
    layers: int = Field(ge=1, description="number of teacher layers to keep")
    neurons: int | None = Field(ge=1, description="feed-forward neurons kept in each layer; null: all")
    probe_examples: int = Field(
        ge=1, description="validation examples on which a layer's importance is measured"
    )
    probe_rounds: int = Field(ge=1, description="importance is measured again after each round of removals")
    kl_weight: float = Field(
        ge=0, le=1, description="weight of the teacher's distribution; the rest is cross-entropy"
    )

    @model_validator(mode="after")
    def whole_groups(self) -> Self:
        if self.neurons and self.rounding and self.neurons % self.rounding.group_size:
            raise ValueError(
                f"neurons must be a multiple of rounding.group_size, {self.rounding.group_size}: the "
                "weights of a group share a scale"
            )
        return self


class Convert(Strict):
    parity_prompts: int = Field(ge=1, description="validation prompts that both variants answer")


class Quantize(Strict):
    int8: str = Field(pattern="^[A-Za-z0-9._-]+$", description="recipes/NAME.json")
    int4: str = Field(pattern="^[A-Za-z0-9._-]+$", description="recipes/NAME.json")


class Evaluate(Strict):
    batch_size: int = Field(ge=1, le=1024)
    max_new_tokens: int = Field(ge=1, le=4096)
    sample: dict[Rung, int | None] = Field(description="test examples that each rung answers; null: all")


class Measure(Strict):
    prompts: int = Field(ge=1)
    rounds: int = Field(ge=1)
    threads: list[int] = Field(min_length=1)
    max_new_tokens: int = Field(ge=1, le=4096)


class Package(Strict):
    name: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")
    variant: Literal["onnx", "int8", "int4"]


class Compute(Strict):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision that training computes in; weights stay float32"
    )
    processes: int = Field(
        ge=1, le=1024, description="processes that train together; each takes its part of every batch"
    )
    accelerate: str | None = Field(
        description="configuration file of Accelerate for these processes; null: DDP on this machine"
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="what generates a model's answers: this process, or a Ray cluster"
    )


class Params(Strict):
    profile: str
    seed: int = Field(ge=0, lt=2**32)
    compute: Compute
    models: Models
    augment: Augment
    teach: Adapted
    synthesize: Synthesize
    distill: Distill
    finetune: Adapted
    convert: Convert
    quantize: Quantize
    evaluate: Evaluate
    measure: Measure
    package: Package

    @property
    def licences(self) -> dict[str, tuple[str, str]]:
        """Parameter and licence of each model that the shipped one comes from. Its own start is the last."""
        found = {}
        if self.synthesize.teacher == "local" or not self.models.student:
            found["base model"] = ("models.license", self.models.license)
        if self.models.student:
            found["student's base model"] = ("models.student.license", self.models.student.license)
        return found


def value_of(tree: Any, name: str) -> Any:
    """The value of a dotted name, such as "distill.layers", in parameters as nested dictionaries."""
    for part in name.split("."):
        tree = tree[part]
    return tree


def load_params(path: Path = PARAMS) -> Params:
    return load_yaml(path, Params)
