"""/generate, /generate_stream, / and /info: the body, the replies, an event of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field

from octavo.messages.params import MAX_STOP_STRINGS
from octavo.server.body import Body, Part

DEFAULT_NEW_TOKENS = 100
"""TGI's, where the caller says nothing."""


class TgiGrammar(Body):
    """What the answer must look like."""

    type: Literal["json", "json_schema", "regex"]
    value: Any


class TgiParameters(Part):
    """How to continue. null means the same as leaving a field out, but for max_new_tokens."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "adapter_id": (),
        "best_of": (1,),
        "watermark": (False,),
    }

    decoder_input_details: bool | None = None
    details: bool | None = None
    do_sample: bool | None = None
    frequency_penalty: float | None = None
    grammar: TgiGrammar | None = None
    max_new_tokens: int | None = DEFAULT_NEW_TOKENS
    """null: up to the end of the context."""
    repetition_penalty: float | None = None
    return_full_text: bool | None = None
    seed: int | None = None
    stop: Annotated[list[str] | None, Field(max_length=MAX_STOP_STRINGS)] = None
    temperature: float | None = None
    top_k: int | None = None
    top_n_tokens: int | None = None
    top_p: float | None = None
    truncate: int | None = None
    typical_p: float | None = None

    @property
    def wants_sampling(self) -> bool:
        """do_sample, or anything that shapes what is sampled from; otherwise the likeliest token wins."""
        shaping = (self.temperature, self.top_k, self.top_p, self.typical_p)
        return bool(self.do_sample) or any(value is not None for value in shaping)

    @property
    def wants_details(self) -> bool:
        return bool(self.details or self.decoder_input_details)


class TgiBody(Body):
    """Continue a text."""

    ignored: ClassVar[frozenset[str]] = frozenset({"model", "options"})

    inputs: str
    parameters: TgiParameters | None = None
    add_special_tokens: bool | None = None
    stream: bool | None = None
    """Read at / only: elsewhere the path says it."""


class TgiToken(msgspec.Struct):
    """A token of the answer."""

    id: int
    text: str
    logprob: float
    special: bool


class TgiPrefillToken(msgspec.Struct):
    """A token of the prompt; the first has no probability."""

    id: int
    text: str
    logprob: float | None


class TgiDetails(msgspec.Struct, kw_only=True):
    """How the answer came about."""

    finish_reason: str
    generated_tokens: int
    seed: int | None
    prefill: list[TgiPrefillToken]
    tokens: list[TgiToken]
    top_tokens: list[list[TgiToken]] | UnsetType = UNSET


class TgiReply(msgspec.Struct):
    """The reply."""

    generated_text: str
    details: TgiDetails | UnsetType = UNSET


class TgiStreamDetails(msgspec.Struct):
    """How a streamed answer ended."""

    finish_reason: str
    generated_tokens: int
    seed: int | None
    input_length: int


class TgiStreamEvent(msgspec.Struct, kw_only=True):
    """One token of a stream; the last one brings the whole text."""

    index: int
    token: TgiToken
    top_tokens: list[TgiToken] | UnsetType = UNSET
    generated_text: str | None = None
    details: TgiStreamDetails | None = None


class TgiInfo(msgspec.Struct, kw_only=True):
    """What is served and within which limits."""

    model_id: str
    model_sha: str | None = None
    model_dtype: str
    model_device_type: str
    model_pipeline_tag: str = "text-generation"
    max_concurrent_requests: int
    max_best_of: int = 1
    max_stop_sequences: int = MAX_STOP_STRINGS
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int = 1
    max_client_batch_size: int = 1
    router: str = "octavo"
    version: str
    sha: str | None = None
    docker_label: str | None = None
