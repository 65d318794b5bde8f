"""The loss of answers: cross-entropy, and divergence from a teacher's stored distribution."""

import torch

from slm.modeling.encoding import IGNORE


def answer_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor], kl_weight: float) -> torch.Tensor:
    """Mean loss of an answer token: cross-entropy, mixed with the divergence from the teacher where it is
    known.

    The teacher's distribution is stored as its top-k log-probabilities; what is left goes into one residual
    bucket (the truncated form of Hinton et al., arXiv 1503.02531).

    Args:
        logits: [batch, answer tokens, vocabulary], each predicting the label of the same column.
        batch: labels, and perhaps topk_ids and topk_logprobs, see `slm.modeling.encoding.collate`.
    """
    labels = batch["labels"]
    answered = labels != IGNORE
    log_q = torch.log_softmax(logits[answered].float(), dim=-1)
    cross_entropy = -log_q.gather(-1, labels[answered].unsqueeze(-1)).squeeze(-1)
    if "topk_ids" not in batch or kl_weight == 0:
        return cross_entropy.mean()
    log_p = batch["topk_logprobs"][answered]
    p = log_p.exp()
    log_q_top = log_q.gather(-1, batch["topk_ids"][answered])
    inside = torch.where(p > 0, p * (log_p - log_q_top), 0).sum(-1)
    tiny = torch.finfo(torch.float32).tiny
    p_rest = (1 - p.sum(-1)).clamp_min(0)
    # Columns without a stored token count as outside: their student probability stays in the rest.
    q_rest = (1 - torch.where(p > 0, log_q_top.exp(), 0).sum(-1)).clamp_min(1e-7)
    divergence = inside + p_rest * (p_rest.clamp_min(tiny).log() - q_rest.log())
    known = p.sum(-1) > 0
    return torch.where(known, kl_weight * divergence + (1 - kl_weight) * cross_entropy, cross_entropy).mean()
