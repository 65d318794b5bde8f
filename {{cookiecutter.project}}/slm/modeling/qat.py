"""Quantization-aware training: the forward pass computes with weights as the recipe will round them.

The gradient ignores the rounding (straight-through, Bengio et al., arXiv 1308.3432; for integer inference
Jacob et al., arXiv 1712.05877). The saved model keeps its unrounded weights. So the fp32 variant is not
rounded, and Olive rounds it later to the same grid.
"""

from typing import Any

import torch
from torch import nn

from slm.config.params import Rounding
from slm.errors import UserError


class _StraightThrough(torch.autograd.Function):
    """Round in symmetric groups along the input, as Olive's Rtn does with `sym`: 15 steps from -max to max,
    zero kept.
    """

    @staticmethod
    def forward(_: Any, weight: torch.Tensor, bits: int, group_size: int) -> torch.Tensor:
        groups, top = weight.reshape(-1, group_size), 2**bits - 1
        scale = (
            groups.abs()
            .amax(dim=1, keepdim=True)
            .mul_(2)
            .div_(top)
            .clamp_min_(torch.finfo(weight.dtype).tiny)
        )
        # In place where it can be: this runs over every weight in every step. The middle is added before
        # rounding, as Olive does: the largest weight of a group lies halfway between two steps, and both must
        # fall on the same side.
        middle = (top + 1) // 2
        return groups.div(scale).add_(middle).round_().clamp_(0, top).sub_(middle).mul_(scale).view_as(weight)

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient, None, None


class RoundedLinear(nn.Linear):
    """A linear layer that shares its weights with `linear` and computes with them rounded."""

    def __init__(self, linear: nn.Linear, rounding: Rounding) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias, self.rounding = linear.weight, linear.bias, rounding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = _StraightThrough.apply(self.weight, self.rounding.bits, self.rounding.group_size)
        return nn.functional.linear(x, weight, self.bias)


def round_in_training(model: nn.Module, rounding: Rounding) -> None:
    """Let every linear layer of the model's blocks compute rounded, in place; names and weights stay.

    Embedding and head stay as they are: recipes give them more bits.
    """
    for block in model.model.layers:
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                if module.in_features % rounding.group_size:
                    raise UserError(
                        f"params.yaml: rounding.group_size is {rounding.group_size}, but the "
                        f"{module.in_features} inputs of a layer's {name} cannot be divided by it; "
                        "take one that divides them, in the recipe too, or rounding: null"
                    )
                parent, _, child = name.rpartition(".")
                setattr(block.get_submodule(parent), child, RoundedLinear(module, rounding))
