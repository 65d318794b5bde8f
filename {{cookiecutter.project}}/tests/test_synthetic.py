"""The teacher's distribution belongs to its own tokens."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from pipeline.synthesize import TEACHER, ask_local
from slm.config.params import load_params
from slm.distillation.synthetic import encode_synthetic
from slm.files import sha256_json
from slm.modeling.checkpoints import load_tokenizer
from slm.modeling.encoding import encode_answer, encode_prompt
from slm.modeling.vocabulary import learnable
from slm.task.records import Record
from slm.teacher.store import Store


@pytest.mark.parametrize("other", [False, True], ids=["its own", "as many others"])
def test_a_distribution_is_paired_with_its_own_tokens_alone(project: Path, other: bool):
    tokenizer = load_tokenizer(project / "models" / "teacher")
    record = Record("1", [{"role": "user", "content": "close"}, {"role": "assistant", "content": "blinds"}])
    ids = encode_answer(tokenizer, record.answer)
    said = [ids[0] + 1, *ids[1:]] if other else ids  # another cut of the same length
    top = np.array([[token, 0] for token in said])
    example = encode_synthetic(tokenizer, record, top, np.zeros_like(top, dtype=np.float32))
    assert ("topk_ids" in example) is not other


LOSSY = "a\U000401f0b"


def without_bytes(written: str) -> str:
    """A byte-level tokenizer that lacks most bytes beyond ASCII, as SmolLM2's lacks some: it drops their
    characters in silence.
    """
    spec = json.loads(written)
    lost = {c for c in spec["model"]["vocab"] if len(c) == 1 and not c.isascii() and c not in "ĠĊ"}
    spec["model"]["vocab"] = {t: i for t, i in spec["model"]["vocab"].items() if not lost & {*t}}
    spec["model"]["merges"] = [m for m in spec["model"]["merges"] if not lost & {*"".join(m)}]
    return json.dumps(spec)


def test_what_the_tokenizer_loses_is_left_out_and_said(tiny, capsys: pytest.CaptureFixture[str]):
    _, tokenizer = copy.deepcopy(tiny)
    tokenizer._tokenizer = Tokenizer.from_str(without_bytes(tokenizer.backend_tokenizer.to_str()))
    records = [
        Record(f"synthetic-{i}", [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}])
        for i, answer in enumerate(["blinds", LOSSY, "close", "日"])
    ]
    assert learnable(tokenizer, records) == [True, False, True, False]
    said = capsys.readouterr().err
    assert "2 of 4 answers are left out" in said and "'synthetic-1'" in said
    assert learnable(tokenizer, records[::2]) == [True, True] and not capsys.readouterr().err


def test_a_local_teacher_teaches_no_outer_blanks(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    params, store = load_params(), Store()
    tokenizer = load_tokenizer(TEACHER)
    said = {"close": " \nblinds\n", "open": "blinds", "stop": "two  words"}
    records = [Record(f"{i}", [{"role": "user", "content": asked}]) for i, asked in enumerate(said)]
    for record in records:  # stored as it came: none of them is asked
        ids = encode_prompt(tokenizer, record.prompt)
        answer = {"text": said[record.text], "token_ids": [1], "cut": False}
        store.put({sha256_json([{}, params.synthesize.top_k, ids]): answer})
    answers = list(ask_local(records, {}, params, store))
    store.close()
    assert [answer and answer["text"] for answer in answers] == ["blinds", "blinds", "two  words"]
