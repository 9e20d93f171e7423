"""GET /v1/models: what is served, by every name it answers to."""

from __future__ import annotations

from octavo.server.openai.schema.models import ModelCard, ModelList
from octavo.server.serving import Serving


def list_models(serving: Serving) -> ModelList:
    return ModelList(data=[model_card(serving, name) for name in serving.model_names])


def model_card(serving: Serving, name: str) -> ModelCard:
    """One model. Raises MODEL_NOT_FOUND."""
    return ModelCard(
        id=serving.check_model(name),
        created=serving.created,
        root=serving.model_names[0],
        max_model_len=serving.engine.max_request_tokens,
    )
