"""How a model's answers will be read, for `octavo explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from octavo.base.errors import OctavoError
from octavo.config.root import EngineConfig

if TYPE_CHECKING:
    from octavo.weights.checkpoint import Checkpoint


class AnswerFormats(msgspec.Struct, frozen=True, kw_only=True):
    """Names of formats and why they were chosen."""

    tool_calls: str
    tool_calls_reason: str
    reasoning: str
    reasoning_reason: str


def answer_formats(checkpoint: Checkpoint, config: EngineConfig) -> AnswerFormats:
    """From the chat template that would be used. Raises ConfigError for a format that there is not."""
    from octavo.server.parsing.detect import detect, with_regions
    from octavo.tokens.tokenizer import load_tokenizer

    server = config.server
    template = response_template = None
    try:
        if not config.model.skip_tokenizer_init:
            tokenizer = load_tokenizer(checkpoint.tokenizer_source(), config.model.chat_template)
            template = tokenizer.template_for(None, True)
            response_template = tokenizer.response_template
    except OctavoError:
        pass  # Nothing to read; the reasons will say that there is no template.
    found = with_regions(
        detect(template, server.tool_call_parser, server.reasoning_parser), response_template
    )
    return AnswerFormats(
        tool_calls=found.tools_name,
        tool_calls_reason=found.tools_reason,
        reasoning=found.reasoning_name,
        reasoning_reason=found.reasoning_reason,
    )
