"""Synthetic records and the teacher's stored distribution, as training examples."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from slm.files import read_jsonl
from slm.modeling.encoding import encode_example
from slm.task.records import Record


def read_synthetic(records: Path, logprobs: Path) -> list[tuple[Record, np.ndarray, np.ndarray]]:
    """Kept records, each with the teacher's top-k ids and log-probabilities, [answer tokens, k] (0 tokens:
    not known).
    """
    rows = read_jsonl(records)
    with np.load(logprobs) as stored:
        ids, values, lengths = stored["ids"], stored["logprobs"].astype(np.float32), stored["lengths"]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return [
        (
            Record(row["id"], row["messages"]),
            ids[starts[i] : starts[i + 1]],
            values[starts[i] : starts[i + 1]],
        )
        for i, row in enumerate(rows)
        if row["dropped"] is None
    ]


def encode_synthetic(
    tokenizer: PreTrainedTokenizerBase, record: Record, ids: np.ndarray, logprobs: np.ndarray
) -> dict[str, Any]:
    """A training example, with the teacher's distribution where its tokens are those that the student learns:
    the same number of others would be paired wrongly.
    """
    example = encode_example(tokenizer, record)
    if len(ids) == 0 or ids[:, 0].tolist() != example["answer_ids"]:
        return example
    return example | {"topk_ids": ids, "topk_logprobs": logprobs}
