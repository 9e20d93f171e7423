"""Which parser reads a conversation's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from octavo.server.parsing.events import PlainParser, StreamParser

if TYPE_CHECKING:
    from octavo.server.openai.schema.chat import ChatBody
    from octavo.server.serving import Serving


def parser_maker(serving: Serving, body: ChatBody, prompt_token_ids: list[int]) -> Callable[[], StreamParser]:
    """Makes one parser per answer."""
    return PlainParser
