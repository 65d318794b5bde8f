"""Which layers of the teacher, and which of their feed-forward neurons, the student keeps: by what each is
worth on validation data.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import ModuleList, Parameter
from transformers import PreTrainedModel

from slm.errors import UserError
from slm.modeling.loss import answer_loss
from slm.progress import track


def check_family(model: PreTrainedModel, name: str) -> None:
    """Pruning and rounding know layers as Llama has them.

    Raises:
        UserError: this model's are others.
    """
    layer = next(iter(getattr(getattr(model, "model", None), "layers", [])), None)
    parts = [
        getattr(getattr(layer, "mlp", None), part, None) for part in ("gate_proj", "up_proj", "down_proj")
    ]
    if not hasattr(layer, "self_attn") or not all(isinstance(part, nn.Linear) for part in parts):
        raise UserError(
            f"{name}: the layers of {type(model).__name__} are not built like Llama's (self_attn, "
            "mlp.gate_proj, up_proj, down_proj); "
            "take a model of such a family: Llama, Mistral, Qwen2, Qwen3, Gemma, SmolLM, ..."
        )


@torch.inference_mode()
def loss_of(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> float:
    """Cross-entropy of an answer token, in nats."""
    keep = batch["labels"].shape[1] + 1
    out = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        logits_to_keep=keep,
        use_cache=False,
    )
    return answer_loss(out.logits[:, :-1], batch, 0.0).item()


class _Instead(nn.Module):
    """In the place of a layer: passes on what is given, else what comes in."""

    def __init__(self, given: torch.Tensor | None = None) -> None:
        super().__init__()
        self.given = given

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden if self.given is None else self.given


def _inputs_of(layers: list[nn.Module], run: Callable[[], float]) -> list[torch.Tensor]:
    """What comes into each of the layers, [batch, tokens, width]."""
    seen: list[torch.Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in layers]
    run()
    for hook in hooks:
        hook.remove()
    return seen


def choose_layers(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], keep: int, rounds: int
) -> tuple[list[int], list[dict[str, Any]]]:
    """Remove, in `rounds` rounds, the layers whose absence raises the loss least, measuring again after each
    round.

    Iterating is after IteRABRe, arXiv 2503.06291.

    Returns:
        the kept layers' indices in order, and one row for each measurement: round, layer, loss without it.
    """
    layers = list(model.model.layers)
    kept = list(range(len(layers)))
    rows: list[dict[str, Any]] = []
    remove = len(layers) - keep
    model.eval()

    def loss_from(first: int, given: torch.Tensor | None = None) -> float:
        """With the kept layers from `first` on; all keep their places, by which some families say what a
        layer attends to.
        """
        places = [layer if i in kept and i >= first else _Instead() for i, layer in enumerate(layers)]
        if given is not None:
            places[first - 1] = _Instead(given)
        model.model.layers = ModuleList(places)
        return loss_of(model, batch)

    for number in range(rounds):
        quota = remove // rounds + (number < remove % rounds)
        if quota == 0:
            continue
        # the layers before the one left out need not compute again
        inputs = _inputs_of([layers[i] for i in kept], lambda: loss_from(0))
        losses = {}
        for layer, given in zip(
            track(kept, f"importance, round {number + 1} of {rounds}"), inputs, strict=True
        ):
            losses[layer] = loss_from(layer + 1, given)
            rows.append({"round": number + 1, "layer": layer, "loss": losses[layer]})
        removed = sorted(losses, key=lambda i: losses[i])[:quota]
        kept = [i for i in kept if i not in removed]
    model.model.layers = ModuleList(layers)
    return kept, rows


def keep_layers(model: PreTrainedModel, kept: list[int]) -> None:
    """Leave only these layers, in place, and make the configuration say so."""
    model.model.layers = ModuleList(model.model.layers[i] for i in kept)
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index
    model.config.num_hidden_layers = len(kept)
    for name in ("layer_types", "no_rope_layers"):  # what some families say of each layer
        if of_each := getattr(model.config, name, None):
            setattr(model.config, name, [of_each[i] for i in kept])


def _heard(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], outputs: list[nn.Linear]
) -> list[torch.Tensor]:
    """How much each input of these linear layers says, [inputs] of each: its mean size on real tokens times
    the norm of its outgoing weights.
    """
    seen, said = batch["attention_mask"].bool(), {}

    def listen(out: nn.Linear) -> Any:
        return lambda _, inputs: said.update({out: inputs[0][seen].abs().mean(0) * out.weight.norm(dim=0)})

    hooks = [out.register_forward_pre_hook(listen(out)) for out in outputs]
    # no inference mode: a parameter that was made in it can be trained, but takes no checkpoint
    with torch.no_grad():
        model.eval()(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=1,
            use_cache=False,
        )
    for hook in hooks:
        hook.remove()
    return [said[out] for out in outputs]


def _keep_outputs(linear: nn.Linear, kept: torch.Tensor) -> None:
    linear.weight, linear.out_features = Parameter(linear.weight.data[kept].clone()), len(kept)
    if linear.bias is not None:
        linear.bias = Parameter(linear.bias.data[kept].clone())


def _keep_inputs(linear: nn.Linear, kept: torch.Tensor) -> None:
    linear.weight, linear.in_features = Parameter(linear.weight.data[:, kept].clone()), len(kept)


def keep_neurons(model: PreTrainedModel, batch: dict[str, torch.Tensor], keep: int) -> None:
    """Leave the `keep` feed-forward neurons of each layer that say most, in place: the activation-based width
    pruning of Minitron (arXiv 2407.14679), with the size of the outgoing weights.
    """
    parts = [layer.mlp for layer in model.model.layers]
    for mlp, values in zip(parts, _heard(model, batch, [mlp.down_proj for mlp in parts]), strict=True):
        kept = values.topk(keep).indices.sort().values
        _keep_outputs(mlp.gate_proj, kept)
        _keep_outputs(mlp.up_proj, kept)
        _keep_inputs(mlp.down_proj, kept)
    model.config.intermediate_size = keep
