"""How a student is made: loss, layers, vocabulary, generation, on a model of a few thousand weights."""

import copy
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn import ModuleList
from transformers import PreTrainedTokenizerFast

from slm.config.params import Rounding, load_params
from slm.distillation.pruning import choose_layers, keep_layers, keep_neurons, loss_of
from slm.errors import UserError
from slm.modeling.checkpoints import (
    adapt,
    load_model,
    load_tokenizer,
    map_rows,
    merged,
    save_model,
    with_adapters,
)
from slm.modeling.encoding import IGNORE, collate, encode_example, use_short_template
from slm.modeling.generation import generate, perplexity
from slm.modeling.loss import answer_loss
from slm.modeling.qat import RoundedLinear, round_in_training
from slm.modeling.vocabulary import add_phrases, learn_phrases, trim
from slm.task.records import TASK, Record, read_records
from slm.training.trainer import TrainingRun, _Sampler, train
from tests.conftest import TEXTS


def example(prompt: list[int], answer: list[int], **extra: object) -> dict:
    return {"prompt_ids": prompt, "answer_ids": answer, **extra}


def test_answers_end_in_the_same_column():
    batch = collate([example([1, 2], [3]), example([4], [5, 6, 7])], pad_id=0)
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORE, IGNORE, 3], [5, 6, 7]]


def test_padding_changes_no_loss(tiny):
    model, _ = tiny
    long, short = example([5, 6, 7, 8, 9], [10, 11, 12]), example([5, 6], [10, 11])

    def loss(*examples: dict) -> float:
        batch = collate(list(examples), 0)
        out = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=batch["labels"].shape[1] + 1,
        )
        return answer_loss(out.logits[:, :-1], batch, 0.0).item()

    assert loss(long, short) == pytest.approx((3 * loss(long) + 2 * loss(short)) / 5, rel=1e-5)


def test_divergence_is_zero_for_the_teacher_itself_and_counts_the_rest():
    logits = torch.randn(1, 2, 50)
    log_p = torch.log_softmax(logits, -1).topk(8)
    batch = {"labels": torch.tensor([[3, 4]]), "topk_ids": log_p.indices, "topk_logprobs": log_p.values}
    assert answer_loss(logits, batch, 1.0).item() == pytest.approx(0, abs=1e-5)
    moved = logits.clone()
    moved[..., log_p.indices[0, 0, 0]] += 2
    assert answer_loss(moved, batch, 1.0).item() > 0.01


def test_without_a_known_distribution_cross_entropy_is_used():
    logits = torch.randn(1, 2, 50)
    batch = {"labels": torch.tensor([[3, 4]])}
    unknown = batch | {
        "topk_ids": torch.zeros(1, 2, 8, dtype=torch.long),
        "topk_logprobs": torch.full((1, 2, 8), -torch.inf),
    }
    assert answer_loss(logits, unknown, 0.9).item() == pytest.approx(answer_loss(logits, batch, 0.0).item())


def test_least_important_layer_goes_first(tiny):
    model = copy.deepcopy(tiny[0])
    with torch.no_grad():  # a layer that adds nothing
        model.model.layers[2].self_attn.o_proj.weight.zero_()
        model.model.layers[2].mlp.down_proj.weight.zero_()
    batch = collate([example([5, 6, 7], [8, 9, 10, 11])], 0)
    # Train the rest a little, so that each other layer matters.
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], logits_to_keep=5)
        answer_loss(out.logits[:, :-1], batch, 0.0).backward()
        model.model.layers[2].zero_grad()
        optimizer.step()
        optimizer.zero_grad()
    model.config.no_rope_layers = [1, 1, 0, 1]  # as SmolLM3 says it of each layer
    kept, rows = choose_layers(model, batch, keep=3, rounds=1)
    assert kept == [0, 1, 3]
    assert len(rows) == 4
    keep_layers(model, kept)
    assert model.config.num_hidden_layers == 3 and model.config.no_rope_layers == [1, 1, 1]
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2]


def test_a_layers_loss_is_that_of_the_model_without_it(tiny):
    """What comes in before the one left out is not computed again; the figure is the same to the last bit."""
    model = copy.deepcopy(tiny[0])
    batch = collate([example([5, 6, 7], [8, 9, 10, 11]), example([5], [8, 9])], 0)
    layers = list(model.model.layers)
    _, rows = choose_layers(model, batch, keep=2, rounds=2)
    assert list(model.model.layers) == layers
    (first,) = {0, 1, 2, 3} - {row["layer"] for row in rows if row["round"] == 2}
    assert len(rows) == 4 + 3
    for row in rows:
        gone = {row["layer"]} if row["round"] == 1 else {row["layer"], first}
        model.model.layers = ModuleList(layer for i, layer in enumerate(layers) if i not in gone)
        assert row["loss"] == loss_of(model, batch)


def test_neurons_that_say_nothing_go_and_the_model_answers_as_before(tiny):
    model = copy.deepcopy(tiny[0])
    batch = collate([example([5, 6, 7], [8, 9, 10, 11]), example([5], [8, 9])], 0)
    size, dead = model.config.intermediate_size, [1, 4]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[:, dead] = 0
        before = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    keep_neurons(model, batch, size - len(dead))
    assert (
        model.config.intermediate_size == model.model.layers[0].mlp.down_proj.in_features == size - len(dead)
    )
    with torch.no_grad():
        after = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(after, before)
    model.load_state_dict(model.state_dict())  # as a training that was killed goes on
    keep_neurons(model, batch, size - len(dead) - 1)  # and one that says something changes it
    with torch.no_grad():
        assert not torch.allclose(
            model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits, before
        )


def test_trimmed_vocabulary_cuts_task_texts_alike_and_loses_no_text(tiny):
    model, tokenizer = copy.deepcopy(tiny[0]), copy.deepcopy(tiny[1])
    use_short_template(tokenizer)
    before = [tokenizer(t)["input_ids"] for t in TEXTS]
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in before]
    with torch.no_grad():
        logits = model(torch.tensor([before[0]])).logits
    import slm.modeling.vocabulary

    size, prefix = len(tokenizer), slm.modeling.vocabulary.PREFIX
    slm.modeling.vocabulary.PREFIX = 10
    try:
        trim(model, tokenizer, TEXTS[:1])
    finally:
        slm.modeling.vocabulary.PREFIX = prefix
    assert len(tokenizer) < size
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tokenizer.convert_ids_to_tokens(tokenizer(TEXTS[0])["input_ids"]) == words[0]
    for text in [*TEXTS, "unseen Ωmega\t\n\x00 𝔘nicode"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    # All of Unicode but the surrogates, which are no text.
    everything = [chr(i) for i in range(sys.maxunicode + 1) if not 0xD800 <= i < 0xE000]
    for start in range(0, len(everything), 1 << 14):
        text = "".join(everything[start : start + (1 << 14)])
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    with torch.no_grad():
        after = model(torch.tensor([tokenizer(TEXTS[0])["input_ids"]])).logits
    common = torch.tensor(before[0])
    new = torch.tensor(tokenizer(TEXTS[0])["input_ids"])
    torch.testing.assert_close(logits[..., common], after[..., new])
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_bytes_that_a_tokenizer_lacks_are_added_and_what_it_puts_before_a_text_stays(tiny):
    model, tokenizer = copy.deepcopy(tiny[0]), copy.deepcopy(tiny[1])
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    lost = [
        spec["model"]["vocab"].pop(c)
        for c in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("П")[0][0]
    ]
    assert len(lost) == 2
    # Ids without a gap, and every text begins with a token of its own.
    spec["model"]["vocab"] = {
        t: n for n, t in enumerate(sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get))
    }
    for token in spec["added_tokens"]:
        token["id"] = spec["model"]["vocab"][token["content"]]
    begin, id = "<|im_start|>", spec["model"]["vocab"]["<|im_start|>"]
    before_each = [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": before_each,
        "pair": [*before_each, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {begin: {"id": begin, "ids": [id], "tokens": [begin]}},
    }
    spec["model"]["merges"] = [m for m in spec["model"]["merges"] if {*m} <= {*spec["model"]["vocab"]}]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(spec))
    assert tokenizer.decode(tokenizer("П", add_special_tokens=False)["input_ids"]) == ""
    size = len(tokenizer)
    map_rows(model, lambda weight: weight[:size])

    trim(model, tokenizer, TEXTS)
    ids = tokenizer("П")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == begin and tokenizer.decode(ids[1:]) == "П"
    assert len(model.get_input_embeddings().weight) == len(tokenizer)
    alphabet = [tokenizer.get_vocab()[c] for c in ByteLevel.alphabet()]
    torch.testing.assert_close(
        model.get_input_embeddings().weight[ids[1]],
        model.get_input_embeddings().weight[[i for i in alphabet if i not in ids]].mean(0),
    )


def test_what_answers_repeat_becomes_one_token_and_requests_stay_as_they_were(tiny):
    model, tokenizer = copy.deepcopy(tiny[0]), copy.deepcopy(tiny[1])

    def record(request: str, answer: str) -> Record:
        return Record("1", [{"role": "user", "content": request}, {"role": "assistant", "content": answer}])

    answers = [
        f'{{"name":"set_light","arguments":{{"room":"{room}"}}}}' for room in ("kitchen", "bad", "café", "5")
    ]
    records = [record("turn on the kitchen light", a) for a in answers] * 10 + [
        record('say "} please', "set_light")
    ] * 30
    phrases = learn_phrases(tokenizer, records, merges=60)
    assert '{"name":"set_light","arguments":{"room":"' in phrases
    assert '"}' not in phrases and not any("kitchen" in p for p in phrases)  # asked for, and a value
    # none, and too rare
    assert (
        learn_phrases(tokenizer, records, merges=0) == learn_phrases(tokenizer, records[:4], merges=60) == []
    )

    before = {r.text: tokenizer(r.text)["input_ids"] for r in records}
    pieces = tokenizer(phrases[0])["input_ids"]
    add_phrases(model, tokenizer, phrases)
    for text in [*answers, *TEXTS]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    assert all(tokenizer(text)["input_ids"] == ids for text, ids in before.items())
    (new,) = tokenizer(phrases[0])["input_ids"]
    assert len(pieces) > 1 and len(tokenizer) == model.config.vocab_size
    embedding = model.get_input_embeddings().weight
    torch.testing.assert_close(embedding[new], embedding[pieces].mean(0))
    assert embedding is model.get_output_embeddings().weight
    assert model(torch.tensor([[new]])).logits.shape[-1] == len(tokenizer)


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("tied", [True, False])
def test_adapters_teach_phrases_too(
    tied: bool, method: str, tiny, project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project)
    params = load_params()
    settings = params.finetune.model_copy(update={"method": method, "rank": 4})
    model, tokenizer = copy.deepcopy(tiny[0]), load_tokenizer(Path("models/teacher"))
    # many families have tokens of their own that are not special: they were trained with the rest
    tokenizer.add_tokens("<tool>")
    map_rows(model, lambda weight: torch.cat([weight, weight[:1]]))
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    assert not any(
        "trainable_tokens" in name
        for name, _ in with_adapters(copy.deepcopy(model), settings).named_parameters()
    )
    add_phrases(model, tokenizer, ["timer"])
    save_model(model, tokenizer, start := Path("start"))
    before = load_model(start, params)
    (new,) = tokenizer("timer")["input_ids"]
    assert new == len(before.get_input_embeddings().weight) - 1

    adapted = adapt(start, settings, params)
    train(
        TrainingRun("finetune", method, settings, params),
        adapted,
        tokenizer,
        [encode_example(tokenizer, r) for r in read_records(TASK / "train.jsonl", True)],
    )
    assert list(Path("logs/finetune").rglob("events.out.tfevents.*"))  # what TensorBoard shows
    batch = torch.tensor([[5, 6, new, 7]])
    said = adapted.eval()(input_ids=batch).logits
    plain = merged(adapted, start, settings, params)
    torch.testing.assert_close(plain(input_ids=batch).logits, said)
    assert (plain.get_input_embeddings().weight is plain.get_output_embeddings().weight) == tied
    for end in ("get_input_embeddings", "get_output_embeddings"):
        moved = (getattr(plain, end)().weight - getattr(before, end)().weight).abs().sum(-1)
        assert moved.nonzero().flatten().tolist() == [new]


def test_what_an_assistant_said_before_is_no_request(tiny):
    """A phrase of the answers that also stands in an earlier turn of the assistant becomes a token; in a turn
    of the user it does not.
    """
    _, tokenizer = tiny
    answer = {"role": "assistant", "content": '{"name":"set_light","arguments":{"room":"kitchen"}}'}

    def phrases(first: str) -> list[str]:
        said = answer["content"]
        turns = [{"role": first, "content": said}, {"role": "user", "content": "again"}]
        return learn_phrases(
            tokenizer,
            [Record("1", [{"role": "user", "content": "the light"}, *turns, answer])] * 20,
            merges=60,
        )

    assert phrases("assistant") and not phrases("user")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (WordLevel({"a": 0, "b": 1}, unk_token="a"), "WordLevel, not byte-level BPE"),
        (Unigram([("a", 0.0), ("b", -1.0)], unk_id=0), "Unigram, not byte-level BPE"),  # SentencePiece's
        (
            BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], unk_token="a", byte_fallback=True),
            "BPE with byte fallback, not byte-level BPE",
        ),
        (BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], unk_token="a"), "BPE, not byte-level BPE"),
    ],
    ids=["words", "unigram", "fallback", "characters"],
)
def test_other_tokenizers_are_refused(tiny, model: object, said: str):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    with pytest.raises(UserError, match=f"this model's tokenizer is {said}; set it to 'full'"):
        trim(copy.deepcopy(tiny[0]), tokenizer, ["a"])


def test_generation_equals_the_library_and_leaves_no_row_waiting(tiny):
    model, tokenizer = tiny
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [14]]
    mine = dict(generate(model, tokenizer, prompts, batch_size=4, max_new_tokens=12, top_k=3))
    for i, prompt in enumerate(prompts):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)[
            0, len(prompt) :
        ].tolist()
        assert mine[i].token_ids == theirs
        assert mine[i].cut == (theirs[-1] != tokenizer.eos_token_id)
        assert len(mine[i].topk_ids) == len(theirs)
        assert [t[0] for t in mine[i].topk_ids] == theirs
        assert all(math.exp(p[0]) <= 1 for p in mine[i].topk_logprobs)


def test_training_rounds_into_the_grid_of_the_recipe():
    """Olive's own rounding is the reference: what was learnt must be what ships."""
    from olive.common.quant.utils import WeightQuantizer

    linear = torch.nn.Linear(64, 48)
    quantizer = WeightQuantizer(bits=4, symmetric=True, group_size=32, signed=False)
    scales, zero_points = quantizer.find_qparams(linear.weight.data)
    shipped = quantizer.dequantize(
        quantizer.quantize(linear.weight.data, scales, zero_points), scales, zero_points
    )
    x = torch.randn(3, 64)
    rounded = RoundedLinear(linear, Rounding(bits=4, group_size=32))
    torch.testing.assert_close(rounded(x), torch.nn.functional.linear(x, shipped, linear.bias))

    rounded(x).sum().backward()
    torch.testing.assert_close(linear.weight.grad, x.sum(0).expand(48, 64))  # straight through


def test_a_model_trained_rounded_is_saved_unrounded_under_its_own_names(tiny):
    model = copy.deepcopy(tiny[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = model(input_ids=ids).logits
    round_in_training(model, Rounding(bits=2, group_size=16))
    assert not torch.allclose(model(input_ids=ids).logits, plain)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_in_bfloat16_training_is_the_same_but_for_its_rounding(project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    params, folder = load_params(), Path("models/teacher")
    settings = params.distill.model_copy(
        update={"epochs": 2, "learning_rate": 1e-3, "rounding": None, "save_steps": 50, "patience": None}
    )
    tokenizer = load_tokenizer(folder)
    examples = [encode_example(tokenizer, r) for r in read_records(TASK / "train.jsonl", True)]
    losses = []
    for precision in ("float32", "bfloat16"):
        changed = params.model_copy(deep=True)
        changed.compute.precision = precision
        start = load_model(folder, params)
        trained = train(TrainingRun("distill", precision, settings, changed), start, tokenizer, examples)
        losses.append(trained.facts["loss"])
        assert {p.dtype for p in trained.model.parameters()} == {torch.float32}
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.03)


def test_batches_are_of_like_length_in_another_order_each_epoch():
    lengths = torch.randint(5, 100, (640,), generator=torch.Generator().manual_seed(0)).tolist()

    def padding(order: list[int]) -> int:
        batches = [[lengths[i] for i in order[start : start + 8]] for start in range(0, len(order), 8)]
        return sum(8 * max(batch) - sum(batch) for batch in batches)

    sampler = _Sampler(lengths, 8, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert sorted(first) == sorted(second := list(sampler)) == list(range(640)) and first != second
    assert max(padding(first), padding(second)) < padding(list(range(640))) / 5


def test_perplexity_is_that_of_the_answers_alone(tiny):
    model, _ = tiny
    examples = [example([5, 6, 7, 8, 9], [10, 11, 12]), example([5, 6], [10, 11]), example([9], [4, 4, 4, 4])]

    def loss(batch: dict[str, torch.Tensor]) -> float:
        out = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=batch["labels"].shape[1] + 1,
        )
        return answer_loss(out.logits[:, :-1], batch, 0.0).item()

    assert perplexity(model, examples, 0, batch_size=2) == pytest.approx(
        math.exp(loss(collate(examples, 0))), rel=1e-4
    )
