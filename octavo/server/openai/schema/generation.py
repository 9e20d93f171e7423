"""Fields that completions and chat share, and the parts of replies that both send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import BeforeValidator, Field, WithJsonSchema

from octavo.engine.prepare import MAX_SALT_LENGTH
from octavo.messages.checks import MAX_TOKEN_LIST
from octavo.messages.params import MAX_LOGIT_BIAS
from octavo.server.body import Body
from octavo.server.openai.schema.fields import IGNORED, UNSUPPORTED
from octavo.server.openai.schema.forms import FormBody
from octavo.server.openai.schema.samplers import SamplerBody

ONE_OR_MORE_STRINGS = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]
}


def strings(value: Any) -> Any:
    """A string, a list of strings or nothing."""
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if value is not None and not isinstance(value, str) and not is_list:
        raise ValueError("must be a string or a list of strings")
    return value


def few_biases(value: Any) -> Any:
    """Count before looking at entries: a huge map must cost nothing."""
    if isinstance(value, dict) and len(value) > MAX_LOGIT_BIAS:
        raise ValueError(f"has {len(value)} entries; at most {MAX_LOGIT_BIAS}")
    return value


Strings = Annotated[Any, BeforeValidator(strings), WithJsonSchema(ONE_OR_MORE_STRINGS)]
LogitBias = Annotated[dict[str, float] | None, BeforeValidator(few_biases)]
TokenIds = Annotated[list[int] | None, Field(max_length=MAX_TOKEN_LIST)]


class StreamOptions(Body):
    """What a stream says beside its text."""

    include_usage: bool | None = None
    """One more chunk at the end, with the usage of the whole request."""
    continuous_usage_stats: bool | None = None
    """Usage so far in every chunk."""


class GenerationBody(FormBody, SamplerBody):
    """What completions and chat have in common. null means the same as leaving a field out."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = UNSUPPORTED
    ignored: ClassVar[frozenset[str]] = IGNORED

    model: str | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: Strings = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: LogitBias = None
    user: str | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: TokenIds = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: Annotated[list[str] | None, Field(max_length=MAX_TOKEN_LIST)] = None
    prompt_logprobs: int | None = None
    truncate_prompt_tokens: int | None = None
    priority: int | None = None
    cache_salt: Annotated[str | None, Field(min_length=1, max_length=MAX_SALT_LENGTH)] = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    add_special_tokens: bool | None = None
    echo: bool | None = None
    request_timeout: float | None = None
    """Seconds until the whole answer has to be there, else it ends with an error; also a header."""
    timings: bool | None = None
    """Say in the answer how long it took."""

    @property
    def wants_stream(self) -> bool:
        return bool(self.stream)

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_running_usage(self) -> bool:
        return bool(self.wants_usage and self.stream_options and self.stream_options.continuous_usage_stats)


class PromptTokensDetails(msgspec.Struct):
    """Where prompt tokens came from."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct):
    """What answers consist of."""

    reasoning_tokens: int


class Usage(msgspec.Struct):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | UnsetType = UNSET
    completion_tokens_details: CompletionTokensDetails | UnsetType = UNSET


class PromptLogprob(msgspec.Struct):
    """A token that could stand at a place of the prompt."""

    logprob: float
    rank: int | None
    decoded_token: str | None


PromptLogprobs = list[dict[int, PromptLogprob] | None]
