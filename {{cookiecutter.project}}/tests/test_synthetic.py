"""The teacher's distribution belongs to its own tokens."""

from pathlib import Path

import numpy as np
import pytest

from slm.distillation.synthetic import encode_synthetic
from slm.modeling.checkpoints import load_tokenizer
from slm.modeling.encoding import encode_answer
from slm.task.records import Record


@pytest.mark.parametrize("other", [False, True], ids=["its own", "as many others"])
def test_a_distribution_is_paired_with_its_own_tokens_alone(project: Path, other: bool):
    tokenizer = load_tokenizer(project / "models" / "teacher")
    record = Record("1", [{"role": "user", "content": "close"}, {"role": "assistant", "content": "blinds"}])
    ids = encode_answer(tokenizer, record.answer)
    said = [ids[0] + 1, *ids[1:]] if other else ids  # another cut of the same length
    top = np.array([[token, 0] for token in said])
    example = encode_synthetic(tokenizer, record, top, np.zeros_like(top, dtype=np.float32))
    assert ("topk_ids" in example) is not other
