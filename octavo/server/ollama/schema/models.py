"""/api/tags, /api/show, /api/ps, /api/version and what asks for a model by name."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from octavo.server.body import Body


class OllamaNameBody(Body):
    """Names a model; `name` is the older word."""

    ignored: ClassVar[frozenset[str]] = frozenset({"insecure", "keep_alive", "options", "verbose"})

    model: str | None = None
    name: str | None = None
    stream: bool | None = None

    @property
    def wanted(self) -> str:
        return self.model or self.name or ""


class OllamaModelDetails(msgspec.Struct, kw_only=True):
    """What kind of model it is, as far as its files say."""

    parent_model: str = ""
    format: str
    family: str
    families: list[str]
    parameter_size: str = ""
    quantization_level: str


class ListedModel(msgspec.Struct, kw_only=True):
    """A model that can be asked for."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaModelDetails


class ModelTags(msgspec.Struct):
    """All of them."""

    models: list[ListedModel]


class RunningModel(msgspec.Struct, kw_only=True):
    """A model in memory."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaModelDetails
    expires_at: str
    size_vram: int
    context_length: int


class RunningModels(msgspec.Struct):
    """All of them."""

    models: list[RunningModel]


class ModelPage(msgspec.Struct, kw_only=True):
    """What is known of a model."""

    modelfile: str
    parameters: str
    template: str
    details: OllamaModelDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(msgspec.Struct):
    """The version of the Ollama API that is spoken, and whose server speaks it."""

    version: str
    octavo: str


class OllamaStatus(msgspec.Struct):
    """How an order went."""

    status: str
