"""What the ablations try and the project does not do: other choices of layers, narrower attention, other losses. Part of benchmarks/ablations.py."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def by_place(example: dict[str, Any], values: np.ndarray) -> dict[str, Any]:
    """The example with the sizes of another tokenizer's distribution, its first token's beside our first and so on, as ULD has it."""
    sizes = np.full((len(example["answer_ids"]), values.shape[1]), -np.inf, np.float32)
    shared = min(len(sizes), len(values))
    sizes[:shared] = values[:shared]
    return example | {"topk_ids": np.zeros(sizes.shape, np.int64), "topk_logprobs": sizes}


def with_teacher(teacher: Any, example: dict[str, Any], top_k: int) -> dict[str, Any]:
    """The example with the teacher's distribution at each token of its answer."""
    from torch import inference_mode, tensor

    with inference_mode():
        ids = tensor([[*example["prompt_ids"], *example["answer_ids"]]])
        logits = teacher(input_ids=ids, logits_to_keep=len(example["answer_ids"]) + 1, use_cache=False).logits[0, :-1]
        top = logits.log_softmax(-1).topk(top_k)
    return example | {"topk_ids": top.indices.numpy(), "topk_logprobs": top.values.numpy()}


@contextmanager
def losses_of(kind: str, teacher: Any, kept: list[int]) -> Iterator[None]:
    """Let the project's trainer compute another loss for a while."""
    from slm.modeling.encoding import IGNORE
    from slm.training import trainer as training
    from torch import no_grad, where
    from torch.nn.functional import mse_loss

    def other(logits: Any, batch: dict[str, Any], kl_weight: float) -> Any:
        answered = batch["labels"] != IGNORE
        log_q = logits[answered].float().log_softmax(-1)
        cross_entropy = -log_q.gather(-1, batch["labels"][answered].unsqueeze(-1)).squeeze(-1)
        if "topk_ids" not in batch:
            return cross_entropy.mean()
        log_p = batch["topk_logprobs"][answered].clamp_min(-30)  # columns without a token are minus infinity, and so would be the gradient
        log_q, p = log_q.gather(-1, batch["topk_ids"][answered]), log_p.exp()
        there = p > 1e-12
        # As ours does: all that is not stored is one more column.
        p_rest = (1 - p.sum(-1)).clamp_min(1e-7)
        q_rest = (1 - where(there, log_q.exp(), 0).sum(-1)).clamp_min(1e-7)
        if kind == "skewed":
            mixed, mixed_rest = (0.1 * p + 0.9 * log_q.exp()).clamp_min(1e-9), 0.1 * p_rest + 0.9 * q_rest
            divergence = where(there, p * (log_p - mixed.log()), 0).sum(-1) + p_rest * (p_rest / mixed_rest).log()
        else:
            divergence = where(there, log_q.exp() * (log_q - log_p), 0).sum(-1) + q_rest * (q_rest / p_rest).log()
        return where(p.sum(-1) > 0.5, kl_weight * divergence + (1 - kl_weight) * cross_entropy, cross_entropy).mean()

    def sizes(logits: Any, batch: dict[str, Any], _: float) -> Any:
        answered = batch["labels"] != IGNORE
        log_q = logits[answered].float().log_softmax(-1)
        cross_entropy = -log_q.gather(-1, batch["labels"][answered].unsqueeze(-1)).squeeze(-1)
        if "topk_ids" not in batch:
            return cross_entropy.mean()
        p = batch["topk_logprobs"][answered].exp()
        far = (p - log_q.topk(p.shape[1]).values.exp()).abs().sum(-1)  # both are sorted
        return (cross_entropy + 1.5 * far * (p.sum(-1) > 0)).mean()

    def with_attention(trainer: Any, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        for each in (model, teacher):
            each.set_attn_implementation("eager")  # the only one that shows what it looks at
        given = {"attention_mask": inputs["attention_mask"], "input_ids": inputs["input_ids"], "output_attentions": True}
        given |= {"logits_to_keep": inputs["labels"].shape[1] + 1, "use_cache": False}
        outputs, seen = model(**given), inputs["attention_mask"].bool()
        with no_grad():
            wanted = teacher(**given).attentions
        far = []
        for i, looked in zip(kept, outputs.attentions, strict=True):
            p, q = (a.transpose(1, 2)[seen].clamp_min(1e-7) for a in (wanted[i], looked))  # [tokens, heads, tokens]
            far.append((p * (p.log() - q.log())).sum(-1).mean())
        loss = training.answer_loss(outputs.logits[:, :-1], inputs, trainer.kl_weight) + sum(far) / len(far)
        return (loss, outputs) if return_outputs else loss

    def with_hidden(trainer: Any, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        given = {"attention_mask": inputs["attention_mask"], "input_ids": inputs["input_ids"], "output_hidden_states": True}
        given |= {"logits_to_keep": inputs["labels"].shape[1] + 1, "use_cache": False}
        outputs, seen = model(**given), inputs["attention_mask"].bool()
        with no_grad():
            wanted = teacher(**given).hidden_states
        # The output of layer i is hidden state i + 1. Layers differ in size by orders of magnitude: each counts by its own.
        far = [
            mse_loss(said[seen], wanted[i + 1][seen]) / wanted[i + 1][seen].square().mean()
            for i, said in zip(kept, outputs.hidden_states[1:], strict=True)
        ]
        loss = training.answer_loss(outputs.logits[:, :-1], inputs, trainer.kl_weight) + sum(far) / len(far)
        return (loss, outputs) if return_outputs else loss

    before = training.answer_loss, training.AnswerTrainer.compute_loss
    try:
        if kind in ("reverse", "skewed"):
            training.answer_loss = other
        if kind == "sizes":
            training.answer_loss = sizes
        if kind in ("hidden", "attention"):
            training.AnswerTrainer.compute_loss = with_hidden if kind == "hidden" else with_attention
        yield
    finally:
        training.answer_loss, training.AnswerTrainer.compute_loss = before


def layers_of(model: Any, probe: dict[str, Any], keep: int, chosen: str) -> list[int]:
    from slm.distillation.pruning import choose_layers

    depth = model.config.num_hidden_layers
    ways: dict[str, Callable[[], list[int]]] = {
        "rounds": lambda: choose_layers(model, probe, keep, rounds=4)[0],
        "once": lambda: choose_layers(model, probe, keep, rounds=1)[0],
        "similarity": lambda: least_similar(model, probe, keep),
        "block": lambda: without_a_block(model, probe, keep),
        "even": lambda: sorted({round(i * (depth - 1) / (keep - 1)) for i in range(keep)}),
        "first": lambda: list(range(keep)),
    }
    return ways[chosen]()


def without_a_block(model: Any, probe: dict[str, Any], keep: int) -> list[int]:
    """All layers but the block in a row whose absence raises the loss least."""
    from slm.distillation.pruning import loss_of
    from torch.nn import ModuleList

    layers, losses = list(model.model.layers), {}
    for start in range(keep + 1):
        kept = [i for i in range(len(layers)) if not start <= i < start + len(layers) - keep]
        model.model.layers = ModuleList(layers[i] for i in kept)
        losses[loss_of(model.eval(), probe)] = kept
    model.model.layers = ModuleList(layers)
    return losses[min(losses)]


def least_similar(model: Any, probe: dict[str, Any], keep: int) -> list[int]:
    """Layers whose output differs most from their input: block influence (ShortGPT, arXiv 2403.03853)."""
    from slm.distillation.pruning import loss_of
    from torch.nn.functional import cosine_similarity

    seen, alike = probe["attention_mask"].bool(), []

    def note(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
        alike.append(cosine_similarity(inputs[0][seen], output[seen], dim=-1).mean().item())

    hooks = [layer.register_forward_hook(note) for layer in model.model.layers]
    loss_of(model.eval(), probe)
    for hook in hooks:
        hook.remove()
    return sorted(sorted(range(len(alike)), key=lambda i: alike[i])[:keep])


def keep_head_groups(model: Any, probe: dict[str, Any], keep: int) -> None:
    """Leave the `keep` groups of attention heads of each layer that say most, in place, chosen as neurons are (after Minitron, arXiv 2407.14679).

    A group is a key and value head with the query heads that read it (grouped-query attention, arXiv 2305.13245).
    """
    from slm.distillation.pruning import _heard, _keep_inputs, _keep_outputs
    from torch import arange

    parts, groups = [layer.self_attn for layer in model.model.layers], model.config.num_key_value_heads
    queries = model.config.num_attention_heads // groups
    for attention, values in zip(parts, _heard(model, probe, [attention.o_proj for attention in parts]), strict=True):
        chosen = values.reshape(groups, -1).sum(1).topk(keep).indices.sort().values
        for linear, sizes in ((attention.q_proj, queries), (attention.k_proj, 1), (attention.v_proj, 1)):
            _keep_outputs(linear, arange(linear.out_features).reshape(groups, sizes * attention.head_dim)[chosen].flatten())
        _keep_inputs(attention.o_proj, arange(attention.o_proj.in_features).reshape(groups, -1)[chosen].flatten())
    model.config.head_dim = parts[0].head_dim
    model.config.num_key_value_heads, model.config.num_attention_heads = keep, keep * queries
