"""What is served, as /api/tags, /api/show and /api/ps tell it. No path of this machine ever shows."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from octavo.server.ollama.names import check_name, listed_name
from octavo.server.ollama.schema.models import (
    ListedModel,
    ModelPage,
    ModelTags,
    OllamaModelDetails,
    RunningModel,
    RunningModels,
)
from octavo.server.ollama.times import rfc3339
from octavo.server.serving import Serving

ALWAYS = timedelta(days=36_500)
"""Models stay loaded while the server runs; clients want a date and add to it."""


def list_tags(serving: Serving) -> ModelTags:
    """GET /api/tags."""
    return ModelTags(
        [
            ListedModel(
                name=listed_name(name),
                model=listed_name(name),
                modified_at=rfc3339(_start(serving)),
                size=_size(serving),
                digest=_digest(serving),
                details=_details(serving),
            )
            for name in serving.model_names
        ]
    )


def list_running(serving: Serving) -> RunningModels:
    """GET /api/ps: what is served is loaded."""
    size = _size(serving)
    return RunningModels(
        [
            RunningModel(
                name=listed_name(name),
                model=listed_name(name),
                size=size,
                digest=_digest(serving),
                details=_details(serving),
                expires_at=rfc3339(_start(serving) + ALWAYS),
                size_vram=size if serving.engine.config.model.device == "cuda" else 0,
                context_length=serving.engine.max_request_tokens,
            )
            for name in serving.model_names
        ]
    )


def show_model(serving: Serving, name: str) -> ModelPage:
    """POST /api/show. Raises MODEL_NOT_FOUND."""
    served = check_name(serving, name)
    family = _family(serving)
    return ModelPage(
        modelfile=f"# Served by Octavo.\nFROM {served}\n",
        parameters="\n".join(f"{name:<30} {value}" for name, value in _parameters(serving).items()),
        template=serving.tokenizer.chat_template or "",
        details=_details(serving),
        model_info={
            "general.architecture": family,
            "general.basename": serving.engine.facts.name,
            f"{family}.context_length": serving.engine.max_request_tokens,
            f"{family}.vocab_size": serving.engine.vocab_size,
        },
        capabilities=_capabilities(serving),
        modified_at=rfc3339(_start(serving)),
    )


def _parameters(serving: Serving) -> dict[str, Any]:
    """Sampling defaults under Ollama's names."""
    values = dict(serving.engine.default_sampling)
    if "repetition_penalty" in values:
        values["repeat_penalty"] = values.pop("repetition_penalty")
    return values


def _capabilities(serving: Serving) -> list[str]:
    facts = serving.engine.facts.pooling
    if facts is not None:
        return ["embedding"] if facts.can_embed else []
    detected = serving.detected(serving.tokenizer.chat_template)
    can = ["completion"]
    if detected.shows_tools:
        can.append("tools")
    if thinks(serving):
        can.append("thinking")
    return can


def thinks(serving: Serving) -> bool:
    """Whether the model's format has a place for reasoning."""
    detected = serving.detected(serving.tokenizer.chat_template)
    return detected.reasoning is not None or detected.regions is not None


def _details(serving: Serving) -> OllamaModelDetails:
    family = _family(serving)
    stored = serving.engine.facts.stored_dtype
    return OllamaModelDetails(
        format="safetensors" if stored in ("float32", "float16", "bfloat16") else "gguf",
        family=family,
        families=[family],
        quantization_level=stored,
    )


def _family(serving: Serving) -> str:
    """'Qwen2ForCausalLM' -> 'qwen2'."""
    return serving.engine.facts.architecture.partition("For")[0].lower()


def _size(serving: Serving) -> int:
    """Bytes of weights."""
    memory = serving.engine.ready.memory_bytes
    return sum(size for name, size in memory.items() if name.startswith("weights"))


def _digest(serving: Serving) -> str:
    """Clients want one per model, as hex digits."""
    return hashlib.sha256(serving.engine.facts.name.encode()).hexdigest()


def _start(serving: Serving) -> datetime:
    return datetime.fromtimestamp(serving.created, UTC)
