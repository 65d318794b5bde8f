"""Parameters of `params.yaml` under synthesize: which teacher answers, at what price, and which answers
the filters remove.
"""

from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from slm.config.loader import Strict

Score = Annotated[float, Field(ge=0, le=1)]
Slice = Annotated[str, Field(pattern="^(class|tag):.")]
# Fields of a request that limit its answer: newer models of OpenAI take the second alone.
LIMITS_OF_ANSWER = ("max_tokens", "max_completion_tokens")


def is_this_machine(address: str) -> bool:
    """Whether an address leads to this machine and never over a network."""
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Price(Strict):
    input: float | None = Field(ge=0, description="USD per million tokens of the request; null: unknown")
    output: float | None = Field(ge=0, description="USD per million tokens of the answer; null: unknown")
    batch: float = Field(1.0, ge=0, le=1, description="share of both prices that a request in a batch costs")


class Limits(Strict):
    usd: float | None = Field(ge=0)
    tokens: int | None = Field(ge=0, description="tokens of requests and answers together")
    requests: int | None = Field(ge=0)


class Endpoint(Strict):
    base_url: str = Field(
        pattern="^https?://[^/?#@\\s]+(/[^?#@\\s]*)?$",
        description="address without key, user or question mark; keys come from the environment",
    )
    allow_http: bool = Field(
        False, description="send key and requests unencrypted to another machine, where base_url says http"
    )
    model: str = Field(min_length=1)
    auth: Literal["key", "entra"] = Field("key", description="a key, or tokens of Entra ID (Azure)")
    api_key_env: str = Field(
        pattern="^[A-Z_][A-Z0-9_]*$", description="environment variable that holds the key"
    )
    concurrency: int = Field(ge=1, le=1024, description="most requests at once")
    timeout_s: float = Field(gt=0, le=3600, description="seconds for a whole answer")
    attempts: int = Field(ge=1, le=20, description="attempts per request; a 429 does not count")
    patience_s: float = Field(
        gt=0, le=86400, description="seconds that the endpoint may put off all requests"
    )
    answers: int = Field(ge=1, le=16, description="answers to each prompt; the most common one is kept")
    rationale: bool = Field(
        description="the teacher reasons before it answers; the student learns only the answer"
    )
    response_format: Literal["auto", "json_schema", "json_object", "none"]
    top_logprobs: int | None = Field(
        ge=0, le=20, description="alternatives kept for each token; null: no log-probabilities"
    )
    model_change: Literal["stop", "accept"]
    extra: dict[str, Any] = Field(description="further fields of each request; null removes a field")
    license: str | None = Field(
        None, description="licence of the answers, as you read the teacher's terms; null: not read yet"
    )
    price: Price
    batch: bool = Field(False, description="ask in batches")
    budget: Limits
    ask_above_usd: float | None = Field(ge=0)

    @model_validator(mode="after")
    def money_needs_a_price(self) -> Self:
        if self.budget.usd is not None and (self.price.input is None or self.price.output is None):
            raise ValueError("budget.usd needs both prices: the cost cannot be counted without them")
        return self

    @model_validator(mode="after")
    def limits_are_numbers(self) -> Self:
        for name in LIMITS_OF_ANSWER:
            limit = self.extra.get(name)
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
                raise ValueError(
                    f"extra.{name} is {limit!r}: write a whole number of tokens, or null to take it out"
                )
        return self


class Generate(Strict):
    """The number of new prompts that each recipe of slm/teacher/prompt_generation.py writes."""

    self_instruct: int = Field(ge=0, le=1_000_000)
    evolve: int = Field(ge=0, le=1_000_000)
    persona: int = Field(ge=0, le=1_000_000)
    out_of_scope: int = Field(ge=0, le=1_000_000)
    weak_slices: int = Field(ge=0, le=1_000_000)


class Filters(Strict):
    refusal: bool
    secrets: bool
    personal: bool
    longest_answer: int | None = Field(ge=1, description="characters; null: off")
    words: list[Annotated[str, Field(min_length=1)]] = Field(
        [], description="words forbidden in prompt and answer; empty: off"
    )
    language: str | None = Field(
        None, pattern="^[a-z]{2,3}$", description="language of prompts, ISO 639; null: off"
    )
    confidence: float | None = Field(
        None,
        gt=0,
        le=1,
        description="least probability that the teacher gives its own answer, geometric mean of its tokens",
    )
    per_class: int | None = Field(None, ge=1, description="most answers of one class; null: off")
    per_tag: int | None = Field(None, ge=1, description="most answers to prompts of one tag; null: off")
    agreement: float | None = Field(
        gt=0, le=1, description="least share of several answers that agree; null: off"
    )
    decontaminate: int | None = Field(
        ge=3,
        le=100,
        description="words in a row that a prompt must not share with a held-out example; null: off",
    )
    near_duplicates: float | None = Field(
        ge=0.5, le=1, description="overlap of word 3-grams from which a later prompt is dropped; null: off"
    )
    near_duplicates_among: int = Field(
        1_000_000,
        ge=1,
        le=100_000_000,
        description="number of earlier prompts that near_duplicates looks back on",
    )
    verify: bool = Field(description="the teacher is asked whether its answer is right")


class Synthesize(Strict):
    teacher: Literal["local", "endpoint"]
    prompts: int = Field(ge=1, description="number of prompts, from the top of task/prompts.jsonl")
    batch_size: int = Field(ge=1, le=1024)
    max_new_tokens: int = Field(ge=1, le=4096)
    top_k: int = Field(ge=1, le=256, description="log-probabilities stored for each token")
    endpoint: Endpoint
    generate: Generate
    slice_scores: dict[Slice, Score] = Field(
        description="scores of the last student on validation data; empty: not known"
    )
    filters: Filters

    @model_validator(mode="after")
    def the_key_travels_encrypted(self) -> Self:
        address = self.endpoint.base_url
        if (
            self.teacher == "endpoint"
            and address.startswith("http:")
            and not (self.endpoint.allow_http or is_this_machine(address))
        ):
            raise ValueError(
                f"endpoint.base_url is {address}: your key would travel unencrypted; write https://, or set "
                "endpoint.allow_http: true where you trust the whole network between"
            )
        return self

    @model_validator(mode="after")
    def agreement_needs_answers(self) -> Self:
        if self.filters.agreement is not None and (self.teacher == "local" or self.endpoint.answers == 1):
            raise ValueError(
                "filters.agreement needs teacher: endpoint and endpoint.answers of 2 or more: one answer "
                "always agrees with itself"
            )
        return self

    @model_validator(mode="after")
    def confidence_needs_logprobs(self) -> Self:
        if (
            self.filters.confidence is not None
            and self.teacher == "endpoint"
            and self.endpoint.top_logprobs is None
        ):
            raise ValueError(
                "filters.confidence needs endpoint.top_logprobs (0 is enough): without it the teacher's "
                "probabilities are unknown"
            )
        return self

    @model_validator(mode="after")
    def an_endpoint_does_more(self) -> Self:
        if self.teacher == "local" and any(self.generate.model_dump().values()):
            raise ValueError("generate needs teacher: endpoint: the local teacher only answers prompts")
        if self.teacher == "local" and self.filters.verify:
            raise ValueError("filters.verify needs teacher: endpoint: the local teacher only answers prompts")
        return self
