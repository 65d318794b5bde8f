"""What answers repeat, as single tokens: a function's name with its first key is then one step of generation instead of a dozen.

Answers are cut by a tokenizer made for prose, which spends most of a structured answer on its skeleton. Tokens for the phrases of a
domain are AdaptiVocab's idea (arXiv 2503.19693); that they may cross the bounds of words, SuperBPE's (arXiv 2503.13423).
"""

from collections import Counter
from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from slm.models import map_rows
from slm.task.records import Record

# A phrase seen less often would be a token that training hardly meets.
SEEN = 20
# Token ids stand as characters of a private plane of Unicode while the merges are learned.
FIRST = 0xF0000


def learn_phrases(tokenizer: PreTrainedTokenizerBase, records: Iterable[Record], merges: int) -> list[str]:
    """The phrases that `merges` byte-pair merges over the tokens of the records' answers find, the commonest first.

    Only the skeleton: a phrase neither begins nor ends inside a word or number, and stands in no labelled request, so that requests are cut as before.
    What an assistant said in an earlier turn is no request: a model reads its own words there, cut as it said them.
    """
    records = list(records)
    answers = [tokenizer(r.answer, add_special_tokens=False)["input_ids"] for r in records]
    trainer = BpeTrainer(vocab_size=len({i for ids in answers for i in ids}) + merges, min_frequency=SEEN, show_progress=False)
    pairs = Tokenizer(BPE())
    pairs.train_from_iterator(["".join(chr(FIRST + i) for i in ids) for ids in answers], trainer)
    found = [tokenizer.decode([ord(c) - FIRST for c in token]) for token in pairs.get_vocab() if len(token) > 1]

    asked = "\n".join(m["content"] for r in records for m in r.prompt if m["role"] != "assistant")
    answered = "\n".join(r.answer for r in records)
    phrases = [p for p in found if p in answered and p not in asked and not any(c.isalnum() or c.isspace() for c in (p[0], p[-1]))]
    said = Counter(i for r in records for i in _with(tokenizer, phrases).encode(r.answer, add_special_tokens=False).ids)
    ids = {p: len(tokenizer) + n for n, p in enumerate(phrases)}
    return sorted((p for p in phrases if said[ids[p]]), key=lambda p: (-said[ids[p]], p))


def _with(tokenizer: PreTrainedTokenizerBase, phrases: list[str]) -> Tokenizer:
    extended = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    extended.add_tokens([AddedToken(p, normalized=False) for p in phrases])
    return extended


def add_phrases(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, phrases: list[str]) -> None:
    """Make each phrase a token, in place; it starts from the mean of the tokens that it stands for."""
    pieces = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in phrases]
    tokenizer._tokenizer = _with(tokenizer, phrases)
    map_rows(model, lambda weight: torch.cat([weight, *(weight[ids].mean(0, keepdim=True) for ids in pieces)]))
    model.config.phrases = len(phrases)  # the last rows: adapters train them too
