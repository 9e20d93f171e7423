"""`options`: Ollama's sampler and runner settings, and what becomes of each.

Runner settings say how Ollama should load a model; here that is the server's business, so they change
nothing. Sampler settings are kept or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from octavo.base.errors import RequestError
from octavo.server.body import Part
from octavo.server.openai.schema.generation import Strings

RUNNER_SETTINGS = frozenset(
    {
        "f16_kv",
        "kv_cache_type",
        "logits_all",
        "low_vram",
        "main_gpu",
        "num_batch",
        "num_gpu",
        "num_keep",
        "num_thread",
        "numa",
        "use_mlock",
        "use_mmap",
        # Of samplers that are refused, or that only say what is so anyway.
        "mirostat_eta",
        "mirostat_tau",
        "penalize_newline",
    }
)

SAME_NAME = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "presence_penalty",
    "frequency_penalty",
    "repeat_last_n",
    "stop",
)
"""Options that a generation body calls the same."""

NO_PENALTIES = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}

UNLIMITED = (-1, -2)
"""num_predict: on until the end of the context."""


class OllamaOptions(Part):
    """What Ollama takes in `options`. null means the same as leaving an option out."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "embedding_only": (False,),
        "mirostat": (0,),
        "tfs_z": (1, 1.0),
        "vocab_only": (False,),
    }
    ignored: ClassVar[frozenset[str]] = RUNNER_SETTINGS

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    num_ctx: Annotated[int | None, Field(ge=1)] = None
    stop: Strings = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    def fields(self, context: int) -> dict[str, Any]:
        """The same as fields of a generation body. `context` is how many tokens one request can hold."""
        self._check_context(context)
        values = {name: value for name in SAME_NAME if (value := getattr(self, name)) is not None}
        if self.repeat_penalty is not None:
            values["repetition_penalty"] = self.repeat_penalty
        if self.num_predict is not None and self.num_predict not in UNLIMITED:
            values["max_tokens"] = self.num_predict
        if self.seed is not None and self.seed != -1:
            values["seed"] = self.seed
        if self.stop == []:
            del values["stop"]
        # Looking back over no token switches all penalties off.
        return {**values, **NO_PENALTIES} if self.repeat_last_n == 0 else values

    def _check_context(self, context: int) -> None:
        if self.num_ctx is not None and self.num_ctx > context:
            raise RequestError(
                f"options.num_ctx is {self.num_ctx}; this server holds at most {context} tokens of one "
                "request. Ask for no more, or start it with a larger --max-model-len.",
                param="options.num_ctx",
            )
