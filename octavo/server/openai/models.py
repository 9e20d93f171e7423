"""GET /v1/models: what is served, by every name it answers to."""

from __future__ import annotations

from datetime import UTC, datetime

from octavo.server.openai.schema.models import ModelCard, ModelList
from octavo.server.serving import Serving


def list_models(serving: Serving) -> ModelList:
    names = serving.model_names
    cards = [model_card(serving, name) for name in names]
    return ModelList(data=cards, first_id=names[0], last_id=names[-1])


def model_card(serving: Serving, name: str) -> ModelCard:
    """One model. Raises MODEL_NOT_FOUND."""
    return ModelCard(
        id=serving.check_model(name),
        created=serving.created,
        root=serving.model_names[0],
        max_model_len=serving.engine.max_request_tokens,
        display_name=name,
        created_at=datetime.fromtimestamp(serving.created, UTC).isoformat(),
    )
