"""Cut a vocabulary down to what the task needs, and add repeated parts of answers as single tokens.

The embedding is a fifth of a 135M model, and half of a pruned one. The tokenizer is made for prose, and
spends most of a structured answer on its skeleton. As one token, a function's name with its first key takes
one step of generation instead of a dozen. AdaptiVocab (arXiv 2503.19693) introduced tokens for the phrases of
a domain. SuperBPE (arXiv 2503.13423) introduced tokens that cross word boundaries.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import regex
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from slm.config.params import Params
from slm.errors import UserError
from slm.modeling.checkpoints import load_model, load_tokenizer, map_rows, save_model
from slm.modeling.encoding import control_tokens, encode_answer, encode_plain, use_short_template
from slm.task.records import TASK, Record

# The commonest merges come first in a BPE vocabulary: they keep texts that the task never saw short.
PREFIX = 1024
# Token ids stand as characters of a private plane of Unicode while the merges are learned.
FIRST = 0xF0000
# A phrase seen less often would be a token that training hardly meets.
SEEN = 20


def used_ids(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> set[int]:
    return {i for ids in encode_plain(tokenizer, list(texts)) for i in ids}


def texts_of(records: Iterable[Record]) -> list[str]:
    """All that is said in the records, and the names of the roles, which a chat template writes."""
    return [m["content"] for r in records for m in r.messages] + ["system\n", "user\n", "assistant\n"]


def write_task_model(
    base: Path, output: Path, params: Params, labelled: list[Record], others: Iterable[Record]
) -> Path:
    """Write the base model as it is taught: with the short chat template and, if params say so, the task's
    vocabulary and context.

    Args:
        labelled: the training examples, whose answers say what becomes a phrase.
        others: records whose tokens stay too: validation data, prompts, an endpoint's answers. Never the test
            set: nothing of it may be seen before release.

    Raises:
        UserError: names the training example whose answer does not come back from its tokens.
    """
    tokenizer, model = load_tokenizer(base), load_model(base, params)
    use_short_template(tokenizer)
    if params.models.vocabulary == "task":
        trim(model, tokenizer, texts_of([*labelled, *others]))
        add_phrases(model, tokenizer, learn_phrases(tokenizer, labelled, params.models.phrases))
    check_answers(tokenizer, labelled)
    if params.models.context:
        model.config.max_position_embeddings = min(
            params.models.context, model.config.max_position_embeddings
        )
    save_model(model, tokenizer, output)
    return output


def check_answers(tokenizer: PreTrainedTokenizerBase, records: Iterable[Record]) -> None:
    """Refuse a labelled answer that its tokens do not give back: a model that learnt it would still say
    another.
    """
    for record in records:
        if (said := _said_by_tokens(tokenizer, record)) != record.answer:
            raise UserError(
                f"{TASK / 'train.jsonl'}:{record.line}: the tokens of record {record.id!r} say {said!r} "
                f"where its answer is {record.answer!r}; write the answer so, or take another base model"
            )


def learnable(tokenizer: PreTrainedTokenizerBase, records: list[Record]) -> list[bool]:
    """Of each record that no person wrote, whether its tokens give its answer back. How many do not is said:
    nobody can mend them, and nobody must learn from them.
    """
    said = [_said_by_tokens(tokenizer, record) for record in records]
    lost = [i for i, record in enumerate(records) if said[i] != record.answer]
    if lost:
        print(
            f"{len(lost)} of {len(records)} answers are left out, because the tokenizer loses characters of "
            f"them; the first is {records[lost[0]].id!r}: {records[lost[0]].answer[:80]!r} becomes "
            f"{said[lost[0]][:80]!r}",
            file=sys.stderr,
        )
    return [text == record.answer for text, record in zip(said, records, strict=True)]


def _said_by_tokens(tokenizer: PreTrainedTokenizerBase, record: Record) -> str:
    return tokenizer.decode(encode_answer(tokenizer, record.answer), skip_special_tokens=True)


def trim(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> None:
    """Keep the tokens of `texts`, their merge ancestors, all bytes and specials, and the commonest merges; in
    place.

    Texts made of kept tokens are cut exactly as before. Bytes that the tokenizer lacks, and so drops in
    silence, are added, each with the mean of the other bytes' rows: any text round-trips. (SmolLM2's lacks
    21: of control characters, of planes of Unicode that are not assigned, and those that are in no UTF-8.)

    Raises:
        UserError: for a tokenizer that is not byte-level BPE.
    """
    spec = _byte_level_bpe(tokenizer)
    vocab: dict[str, int] = spec["model"]["vocab"]
    # Each process has the alphabet in another order, and a mean of rows in another order rounds otherwise.
    bytes_there = [vocab[c] for c in sorted(ByteLevel.alphabet()) if c in vocab]
    wanted = used_ids(tokenizer, texts) | {*range(PREFIX)} & {*vocab.values()}
    wanted |= {*bytes_there} | {t["id"] for t in spec["added_tokens"]}
    wanted |= _ancestors(spec, wanted)

    # Ascending old ids keep the merge ranks in order.
    new_id = {old: new for new, old in enumerate(sorted(wanted))}
    missing = sorted({*ByteLevel.alphabet()} - {*vocab})
    _renumber(spec, new_id, missing)
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(spec))

    rows = torch.tensor(sorted(wanted))
    map_rows(
        model, lambda weight: torch.cat([weight[rows], weight[bytes_there].mean(0).expand(len(missing), -1)])
    )
    for config in (model.config, model.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
            value = getattr(config, name, None)
            if isinstance(value, int):
                setattr(config, name, new_id.get(value))
            elif isinstance(value, list):
                setattr(config, name, [new_id[v] for v in value if v in new_id])


def _byte_level_bpe(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer as JSON, refused if it is of another kind; a merge is a pair of tokens."""
    spec: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = spec["model"]["type"] + (" with byte fallback" if spec["model"].get("byte_fallback") else "")
    if kind != "BPE" or '"ByteLevel"' not in json.dumps(spec["decoder"]):
        raise UserError(
            f"params.yaml: models.vocabulary is 'task', but this model's tokenizer is {kind}, not "
            "byte-level BPE; set it to 'full'"
        )
    spec["model"]["merges"] = [
        tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in spec["model"]["merges"]
    ]
    return spec


def _ancestors(spec: dict[str, Any], ids: set[int]) -> set[int]:
    """The tokens that these are merged from, and those that these are merged from."""
    vocab: dict[str, int] = spec["model"]["vocab"]
    token_of = {i: t for t, i in vocab.items()}
    parts: dict[str, tuple[str, ...]] = {}
    for left, right in spec["model"]["merges"]:
        parts.setdefault(left + right, (left, right))
    found: set[int] = set()
    pending = list(ids)
    while pending:
        for part in parts.get(token_of.get(pending.pop(), ""), ()):
            if vocab[part] not in found:
                found.add(vocab[part])
                pending.append(vocab[part])
    return found


def _renumber(spec: dict[str, Any], new_id: dict[int, int], added: list[str]) -> None:
    """Leave only the tokens that have a new id, in place; `added` come after them."""
    vocab: dict[str, int] = spec["model"]["vocab"]
    spec["model"]["vocab"] = {t: new_id[i] for t, i in vocab.items() if i in new_id} | {
        c: len(new_id) + n for n, c in enumerate(added)
    }
    spec["model"]["merges"] = [
        list(m)
        for m in spec["model"]["merges"]
        if all(t in spec["model"]["vocab"] for t in (*m, m[0] + m[1]))
    ]
    for token in spec["added_tokens"]:
        token["id"] = new_id[token["id"]]
    processor = spec["post_processor"] or {}
    for part in [processor, *processor.get("processors", [])]:
        for token in part.get("special_tokens", {}).values():  # what some families put before every text
            token["ids"] = [new_id[i] for i in token["ids"]]


def learn_phrases(tokenizer: PreTrainedTokenizerBase, records: Iterable[Record], merges: int) -> list[str]:
    """The phrases that `merges` byte-pair merges over the tokens of the records' answers find, the commonest
    first.

    Only the skeleton: a phrase neither begins nor ends inside a word or number, and stands in no labelled
    request, so that requests are cut as before.
    Only what survives: a byte-level decoder takes each letter of a token for a byte, if all of them can stand
    for one. It would make `"café"` as one token into `"caf\ufffd"`; in pieces, and beside a blank or a letter
    of another script, the é comes back. And a phrase that begins a control token, such as `</a><` before
    `<|im_end|>`, would take its beginning from it.
    What an assistant said in an earlier turn is no request: a model reads its own words there, cut as it said
    them.
    """
    records = list(records)
    answers = encode_plain(tokenizer, [r.answer for r in records])
    trainer = BpeTrainer(
        vocab_size=len({i for ids in answers for i in ids}) + merges, min_frequency=SEEN, show_progress=False
    )
    pairs = Tokenizer(BPE())
    pairs.train_from_iterator(["".join(chr(FIRST + i) for i in ids) for ids in answers], trainer)
    found = [
        tokenizer.decode([ord(c) - FIRST for c in token]) for token in pairs.get_vocab() if len(token) > 1
    ]

    asked = "\n".join(m["content"] for r in records for m in r.prompt if m["role"] != "assistant")
    answered = "\n".join(r.answer for r in records)
    decoder, controls = tokenizer.backend_tokenizer.decoder, set(control_tokens(tokenizer).values())
    phrases = [
        p
        for p in found
        if p in answered
        and p not in asked
        and not any(regex.match(r"[\p{L}\p{M}\p{N}\s]", c) for c in (p[0], p[-1]))
        and decoder.decode([p]) == p
        and not any(_takes_from(p, token) for token in controls)
    ]
    extended = _with(tokenizer, phrases)
    encoded = extended.encode_batch([r.answer for r in records], add_special_tokens=False)
    said = Counter(i for answer in encoded for i in answer.ids)
    ids = {p: len(tokenizer) + n for n, p in enumerate(phrases)}
    return sorted((p for p in phrases if said[ids[p]]), key=lambda p: (-said[ids[p]], p))


def _takes_from(phrase: str, token: str) -> bool:
    """Whether the phrase holds the token, or ends in its beginning."""
    return token in phrase or any(phrase.endswith(token[:n]) for n in range(1, len(token)))


def _with(tokenizer: PreTrainedTokenizerBase, phrases: list[str]) -> Tokenizer:
    extended = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    extended.add_tokens([AddedToken(p, normalized=False) for p in phrases])
    return extended


def add_phrases(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, phrases: list[str]) -> None:
    """Make each phrase a token, in place; it starts from the mean of the tokens that it stands for."""
    pieces = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in phrases]
    tokenizer._tokenizer = _with(tokenizer, phrases)
    map_rows(
        model, lambda weight: torch.cat([weight, *(weight[ids].mean(0, keepdim=True) for ids in pieces)])
    )
    model.config.phrases = len(phrases)  # the last rows: adapters train them too
