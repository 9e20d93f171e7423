"""Octavo: a serving engine for large language models. Public names only, loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from octavo.base.errors import ConfigError, EngineError, ModelFileError, OctavoError, RequestError
    from octavo.engine.async_llm import AsyncLLM
    from octavo.engine.llm import LLM
    from octavo.engine.outputs import BeamSearchOutput, CompletionOutput, Logprob, RequestOutput
    from octavo.engine.pooling.outputs import (
        ClassificationRequestOutput,
        EmbeddingRequestOutput,
        PoolingRequestOutput,
        ScoringRequestOutput,
    )
    from octavo.messages.beam import BeamSearchParams
    from octavo.messages.params import RequestOutputKind, SamplingParams
    from octavo.messages.pooling import PoolingParams
    from octavo.messages.samplers import RepetitionDetectionParams
    from octavo.messages.structured import StructuredOutputsParams

_HOMES = {
    "LLM": "octavo.engine.llm",
    "AsyncLLM": "octavo.engine.async_llm",
    "SamplingParams": "octavo.messages.params",
    "RequestOutputKind": "octavo.messages.params",
    "StructuredOutputsParams": "octavo.messages.structured",
    "RequestOutput": "octavo.engine.outputs",
    "BeamSearchOutput": "octavo.engine.outputs",
    "BeamSearchParams": "octavo.messages.beam",
    "RepetitionDetectionParams": "octavo.messages.samplers",
    "ClassificationRequestOutput": "octavo.engine.pooling.outputs",
    "EmbeddingRequestOutput": "octavo.engine.pooling.outputs",
    "PoolingParams": "octavo.messages.pooling",
    "PoolingRequestOutput": "octavo.engine.pooling.outputs",
    "ScoringRequestOutput": "octavo.engine.pooling.outputs",
    "CompletionOutput": "octavo.engine.outputs",
    "Logprob": "octavo.engine.outputs",
    "OctavoError": "octavo.base.errors",
    "RequestError": "octavo.base.errors",
    "ConfigError": "octavo.base.errors",
    "ModelFileError": "octavo.base.errors",
    "EngineError": "octavo.base.errors",
}

__all__ = [
    "LLM",
    "AsyncLLM",
    "BeamSearchOutput",
    "BeamSearchParams",
    "ClassificationRequestOutput",
    "CompletionOutput",
    "ConfigError",
    "EmbeddingRequestOutput",
    "EngineError",
    "Logprob",
    "ModelFileError",
    "OctavoError",
    "PoolingParams",
    "PoolingRequestOutput",
    "RepetitionDetectionParams",
    "RequestError",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "ScoringRequestOutput",
    "StructuredOutputsParams",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'octavo' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
