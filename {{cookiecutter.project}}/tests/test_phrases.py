"""What becomes one token is said as it was written, in any language and by every runtime."""

import copy
import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from slm.config.params import load_params
from slm.errors import UserError
from slm.inference.genai import GenAI
from slm.modeling.checkpoints import load_tokenizer, save_model
from slm.modeling.encoding import encode_answer, encode_plain, use_short_template
from slm.modeling.vocabulary import add_phrases, check_answers, learn_phrases, trim, write_task_model
from slm.task.records import Record
from tests.test_control_tokens import pack

CALLS = [
    {"name": "café", "arguments": {"raum": "Küche", "zustand": "an"}},
    {"name": "réclamation", "arguments": {"pièce": "entrée", "état": "ouvert"}},
    {"name": "señal", "arguments": {"año": "mañana", "lugar": "baño"}},
    {"name": "समस्या", "arguments": {"कोठा": "भान्सा", "अवस्था": "खुला"}},
    {"name": "退款", "arguments": {"订单": "一百", "原因": "坏了"}},
    {"name": "état Ω", "arguments": {"où çà": "ĠĊ", "Āĉ": "¡¿"}},
]
LABELS = ["Rückgabe", "réclamation", "señal", "समस्या", "退款", "Straße", "garçon", "मूल्य फिर्ता", "¿qué?"]


def recorded(answers: list[str]) -> list[Record]:
    """Each answer so often that what it repeats becomes a phrase, to requests that name nothing of it."""
    return [
        Record(
            f"{i}", [{"role": "user", "content": "please"}, {"role": "assistant", "content": answer}], [], i
        )
        for i, answer in enumerate(answers * 30, 1)
    ]


def taught(tiny, records: list[Record]) -> tuple[PreTrainedTokenizerFast, list[str]]:
    model, tokenizer = copy.deepcopy(tiny)
    tokenizer.bos_token = "<|im_start|>"
    use_short_template(tokenizer)
    trim(model, tokenizer, [r.answer for r in records])
    phrases = learn_phrases(tokenizer, records, merges=400)
    add_phrases(model, tokenizer, phrases)
    return tokenizer, phrases


@pytest.mark.parametrize(
    "answers",
    [
        [json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in CALLS],
        LABELS,
        [f'"{x}"' for x in LABELS],
    ],
    ids=["calls", "labels", "quoted"],
)
def test_every_answer_is_said_as_it_was_written(answers: list[str], tiny, tmp_path: Path):
    records = recorded(answers)
    tokenizer, phrases = taught(tiny, records)
    check_answers(tokenizer, records)
    runtime = GenAI(pack(tokenizer, "chatml", tmp_path))
    stream = runtime.tokenizer.create_stream()
    for text in [*phrases, *answers, *(f"{p}é{p}" for p in phrases), *(f"ü{a}日" for a in answers)]:
        (ids,) = encode_plain(tokenizer, [text])
        assert ids == runtime.tokenizer.encode(text).tolist()
        assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == text
        assert runtime.tokenizer.decode(ids) == text == "".join(stream.decode(i) for i in ids)


def test_a_call_keeps_the_phrases_that_survive(tiny):
    """`{"name":"café"` would come back with a broken letter; with a letter of another script it comes
    whole.
    """
    answers = [json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in CALLS]
    _, phrases = taught(tiny, recorded(answers))
    assert '{"name":"समस्या","arguments":{"कोठा":"भान्सा","अवस्था":"खुला"}}' in phrases
    assert '{"name":"退款","arguments":{"订单":"一百","原因":"坏了"}}' in phrases
    assert not any(letter in p for p in phrases for letter in ("café", "señal", "Küche", "pièce"))
    assert '","arguments":{"' in phrases  # what stands between such words is still one token


def test_a_phrase_begins_and_ends_outside_of_words(tiny):
    """A vowel sign is no letter, but it stands inside a word: बजार is not cut into बज and `ार"`."""
    stops = ("बजार", "कारखाना", "रङ्गशाला", "सङ्ग्रहालय", "पुस्तकालय", "ba\u0301r", "ca\u0301r")
    answers = [f'{{"stop":"{stop}","seats":{i}}}' for i in range(30) for stop in stops]
    _, phrases = taught(tiny, recorded(answers)[: len(answers)])
    assert any('","seats":' in p for p in phrases)
    assert not [c for p in phrases for c in (p[0], p[-1]) if unicodedata.category(c)[0] in "LMN"]


def test_a_phrase_takes_nothing_from_a_control_token(tiny):
    """As one token, `><` would read an answer's last `>` with the `<` of the token that ends the message."""
    records = recorded(["<a><b>one</b></a>", "<a><b>two</b><|im_end|></a>"])
    tokenizer, phrases = taught(tiny, records)
    assert phrases and not any(p.endswith("<") or "<|" in p for p in phrases)
    end = tokenizer.eos_token_id
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<a></a>"}]
    text = tokenizer.apply_chat_template(said, tokenize=False)
    assert tokenizer(text)["input_ids"][-1] == end


def test_an_answer_that_does_not_come_back_is_named(tiny, project: Path, monkeypatch: pytest.MonkeyPatch):
    """A normalizer writes é as one letter, where this answer has an e and an accent."""
    monkeypatch.chdir(project)
    model, tokenizer = copy.deepcopy(tiny)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    template = Path(__file__).parent / "templates" / "contents.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    save_model(model, tokenizer, base := Path("normalizing"))
    records = [
        Record(f"r{i}", [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}], [], i)
        for i, answer in enumerate(["caf\u00e9", "cafe\u0301"], 1)
    ]
    params = load_params()
    with pytest.raises(UserError, match=r"task/train.jsonl:2: the tokens of record 'r2' say 'café' where"):
        write_task_model(base, Path("task-model"), params, records, [])
    assert not Path("task-model").exists()
    written = write_task_model(base, Path("task-model"), params, records[:1], [])
    kept = load_tokenizer(written)
    assert kept.decode(encode_answer(kept, "café"), skip_special_tokens=True) == "café"
