"""A teacher behind an endpoint writes new requests from labelled ones. This module builds its prompts and
reads the requests from its replies.

self_instruct   a few labelled examples, and more like them (Wang et al., arXiv 2212.10560)
evolve          one request, made harder, rarer, less direct (Evol-Instruct, Xu et al., arXiv 2304.12244)
persona         the same jobs, as another kind of person says them (Ge et al., arXiv 2406.20094)
out_of_scope    near misses: texts that sound like a request for this assistant but are not
weak_slices     more of the classes and tags in which the last student was worst on validation data

A call depends on its recipe, its number and its seeds, and each seed is drawn by a hash of its own. So more
calls, or more labelled examples, leave most calls and their stored answers unchanged.
"""

import hashlib
import heapq
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from slm.config.synthesis import Endpoint, Generate
from slm.errors import UserError
from slm.task.answers import class_of, unfenced
from slm.task.definition import Task
from slm.task.records import TASK, Record
from slm.task.strict import Unreadable, composed, plain_message
from slm.teacher.client import Request, parameters_of, text_request
from slm.teacher.patterns import REFUSALS

PERSONAS = (
    "a child of eight",
    "a teenager in a hurry",
    "a retired teacher who writes in whole sentences",
    "a nurse after a night shift",
    "an engineer who is terse and exact",
    "somebody who is still learning the language",
    "a polite shop assistant",
    "a parent with a baby on one arm",
    "a farmer who speaks a dialect",
    "a lawyer who leaves nothing open",
    "somebody who dictates and corrects themselves",
    "a student who types in lower case without punctuation",
    "a grandmother who tells a story around it",
    "a cook with wet hands and few words",
    "somebody who is annoyed",
    "a visitor who does not know how things are called here",
)
MOST_REPLY_TOKENS = 4096  # of a reply


@dataclass(frozen=True)
class Recipe:
    """seeds: labelled examples shown in a call; asked: new requests wanted of it."""

    seeds: int
    asked: int
    what: str


RECIPES = {
    "self_instruct": Recipe(
        8,
        10,
        "Write {asked} new requests for this job. Each differs from the examples, and from the "
        "others, in what it asks for and in how it is said.",
    ),
    "evolve": Recipe(
        1,
        3,
        "Make the request of the example harder, in {asked} ways: one with a further detail or "
        "condition, one about a rarer case of the same kind, one said less directly. Each stays one "
        "request that the job covers.",
    ),
    "persona": Recipe(
        4,
        4,
        "Write {asked} new requests, one for the same purpose as each example, in the words of {persona}.",
    ),
    "out_of_scope": Recipe(
        6,
        10,
        "The examples are requests that the job covers. Write {asked} that sound as if they were "
        "for the same assistant, and that the job does not cover: near misses, no nonsense.",
    ),
    "weak_slices": Recipe(
        5,
        10,
        "The assistant often errs at requests such as the examples. Write {asked} new ones of the "
        "same kind, and of the same difficulty, that differ from the examples and from each other.",
    ),
}
FORM = (
    "Reply with a JSON list of {asked} texts alone: the requests, word for word as a person would say "
    "them, without their answers."
)


@dataclass(frozen=True)
class Call:
    """One request for new requests. detail: whose words, or which slice."""

    recipe: str
    number: int
    parents: list[Record]
    detail: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.recipe}-{self.number:04}"

    def request(self, settings: Endpoint, task: Task) -> Request:
        recipe = RECIPES[self.recipe]
        what = f"{recipe.what} {FORM}".format(asked=recipe.asked, **self.detail)
        system = (
            "You write requests that an assistant is trained with. What the assistant is "
            f"told:\n\n{task.instruction.strip()}\n\n{what}"
        )
        examples = [{"request": r.text, "answer": r.answer} for r in self.parents]
        longest = max(len(r.text.encode()) for r in self.parents)
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": json.dumps(examples, ensure_ascii=False, indent=1)},
        ]
        return text_request(
            settings, messages, min(MOST_REPLY_TOKENS, 64 + recipe.asked * (32 + longest)), sample=self.number
        )


def calls_of(task: Task, wanted: Generate, scores: dict[str, float], labelled: list[Record]) -> list[Call]:
    """As many calls as can give what is wanted of each recipe.

    Args:
        scores: of the last student on validation data, by slice ("class:…", "tag:…"); empty: unknown.
        labelled: the training examples; never those that are held out.
    """
    calls = []
    for name, recipe in RECIPES.items():
        for number in range(1, -(-getattr(wanted, name) // recipe.asked) + 1):
            detail, among = {}, labelled
            if name == "persona":
                detail = {"persona": PERSONAS[(number - 1) % len(PERSONAS)]}
            if name == "weak_slices":
                detail, among = weak_slice(task, scores, labelled, number)
            calls.append(Call(name, number, drawn(among, recipe.seeds, f"{name} {number}"), detail))
    return calls


def drawn(records: list[Record], count: int, by: str) -> list[Record]:
    """Always the same for the same records; one record more changes one draw in a few."""
    return heapq.nsmallest(count, records, key=lambda r: hashlib.sha256(f"{by} {r.id}".encode()).digest())


WORST = 5


def records_by_slice(task: Task, labelled: list[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in labelled:
        name = class_of(task, record.answer)
        for slice_name in [
            *([f"class:{name}"] if name is not None else []),
            *(f"tag:{tag}" for tag in record.tags),
        ]:
            found[slice_name].append(record)
    return dict(sorted(found.items()))


def weak_slice(
    task: Task, scores: dict[str, float], labelled: list[Record], number: int
) -> tuple[dict[str, str], list[Record]]:
    """One of the worst slices, the worse the likelier; where no score is known, one of the rarest classes
    (tags, if there are none).
    """
    found = records_by_slice(task, labelled)
    lost = {name: 1 - scores[name] for name in found if scores.get(name, 1) < 1}
    by = "score on validation data"
    if not lost:
        by = "rarity"
        classes = [name for name in found if name.startswith("class:")]
        lost = {name: 1 / len(found[name]) for name in classes or found}
    if not lost:
        raise UserError(
            f"{TASK}/train.jsonl has neither classes nor tags, so no slice is weak; set "
            "synthesize.generate.weak_slices to 0"
        )
    worst = sorted(lost, key=lambda name: (-lost[name], name))[:WORST]
    (chosen,) = random.Random(f"weak_slices {number}").choices(worst, [lost[name] for name in worst])
    return {"slice": chosen, "weak_by": by}, found[chosen]


def read_requests(text: str, cut: bool) -> list[str]:
    """The requests in a reply: the texts of a JSON list, else one a line; what is neither is left out.

    cut: the reply ended in the middle; its last line is left out, and of a list what is not whole.
    """
    bare = unfenced(text).strip()
    if start := re.search(r'\[\s*(?=")', bare):
        found, decoder, at = [], json.JSONDecoder(), start.end()
        while True:
            try:
                value, at = decoder.raw_decode(bare, at)
            except (ValueError, RecursionError):
                break
            found.append(value)
            while at < len(bare) and (bare[at].isspace() or bare[at] == ","):
                at += 1
        return _as_data(v for v in found if isinstance(v, str))
    if REFUSALS.match(bare) or bare.startswith(("{", "[")):
        return []
    lines = bare.split("\n")[: -1 if cut else None]
    plain = [
        re.sub(r"^\s*(?:[-*•]|\d{1,3}[.):])\s+", "", line).strip().strip('"“”').strip() for line in lines
    ]
    return _as_data(line for line in plain if not line.endswith(":"))


def _as_data(texts: Iterable[str]) -> list[str]:
    """The requests as task/prompts.jsonl would be read; what it may not hold is left out."""
    read = []
    for text in texts:
        try:
            read.append(plain_message(composed({"role": "user", "content": text.strip()}))["content"])
        except Unreadable:
            continue
    return read


def provenance_of(call: Call, request: Request, answer: dict[str, Any]) -> dict[str, Any]:
    """Where the requests of one call come from; usage is that of the whole call."""
    said = {name: answer.get(name) for name in ("model", "request_id", "usage", "usd")}
    return {
        "recipe": call.recipe,
        **call.detail,
        "parents": [r.id for r in call.parents],
        "parameters": parameters_of(request),
        **said,
    }
