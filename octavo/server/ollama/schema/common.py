"""What the bodies and the replies of chat and generate have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import WithJsonSchema

from octavo.server.body import Body
from octavo.server.ollama.schema.options import OllamaOptions
from octavo.server.openai.schema.chat import TokenLogprob

FORMAT_SCHEMA = {"anyOf": [{"enum": ["", "json"]}, {"type": "object"}, {"type": "null"}]}


class AnswerBody(Body):
    """Fields that chat and generate share."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {"_debug_render_only": (False,)}
    # Text that does not fit is refused here, never cut: there is nothing to truncate or shift.
    ignored: ClassVar[frozenset[str]] = frozenset({"truncate", "shift"})

    model: str
    stream: bool | None = None
    format: Annotated[Any, WithJsonSchema(FORMAT_SCHEMA)] = None
    options: OllamaOptions | None = None
    think: bool | str | None = None
    keep_alive: float | str | None = None
    """Accepted: the model stays loaded as long as the server runs."""
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def wants_stream(self) -> bool:
        """Unlike elsewhere, answers are streamed unless the caller says no."""
        return self.stream is not False

    @property
    def load_reason(self) -> str:
        """What to say of a request that only wants the model to come or go."""
        return "unload" if self.keep_alive in (0, "0", "0s", "0m", "0h") else "load"


class Reply(msgspec.Struct, kw_only=True):
    """A reply, or one line of a stream. Measures come with the last one."""

    model: str
    created_at: str
    done: bool = False
    done_reason: str | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[TokenLogprob] | UnsetType = UNSET
