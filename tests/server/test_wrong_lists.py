"""A long list of wrong values is given up at its first one: nothing else runs while they are counted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from octavo.base.errors import RequestError
from octavo.server.anthropic.body import MessagesBody
from octavo.server.body import Body, validate
from octavo.server.ollama.schema.generate import OllamaGenerateBody
from octavo.server.openai.responses.body import ResponsesBody
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.openai.schema.completion import CompletionBody
from octavo.server.openai.schema.tokens import DetokenizeBody
from octavo.server.pooling.schema import RerankBody

MANY = 10_000
KINDS_OF_ENTRIES = 2
"""Each kind that an entry may be of adds an error of its own."""

CASES: list[tuple[type[Body], dict[str, Any], str]] = [
    (ChatBody, {"messages": [{}] * MANY}, "messages[0].role"),
    (ChatBody, {"messages": [1] * MANY}, "messages[0]"),
    (ChatBody, {"messages": [], "tools": ["x"] * MANY}, "tools[0]"),
    (CompletionBody, {"allowed_token_ids": [0.5] * MANY}, "allowed_token_ids[0]"),
    (CompletionBody, {"guided_choice": [1] * MANY}, "guided_choice[0]"),
    (CompletionBody, {"structured_outputs": {"choice": [1] * MANY}}, "structured_outputs.choice[0]"),
    (ResponsesBody, {"input": "x", "include": ["x"] * MANY}, "include[0]"),
    (ResponsesBody, {"input": "x", "metadata": dict.fromkeys(map(str, range(MANY)), 1)}, "metadata"),
    (MessagesBody, {"model": "m", "max_tokens": 1, "messages": [{}] * MANY}, "messages[0].role"),
    (OllamaGenerateBody, {"model": "m", "context": ["x"] * MANY}, "context[0]"),
    (DetokenizeBody, {"tokens": [True] * MANY}, "tokens[0]"),
    (RerankBody, {"query": "q", "documents": [1] * MANY}, "documents[0]"),
]


@pytest.mark.parametrize(("model", "document", "param"), CASES)
def test_only_the_first_wrong_entry_is_told(model: type[Body], document: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as found:
        model.model_validate(document)
    assert found.value.error_count() <= KINDS_OF_ENTRIES
    with pytest.raises(RequestError) as refused:
        validate(document, model)
    assert refused.value.param == param
