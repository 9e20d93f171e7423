"""How a body's answer will be written and read: the tools shown, the formats expected, the form forced."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.openai.schema.chat import ConversationBody
from octavo.server.parsing.detect import Detected
from octavo.server.parsing.formats.contract import ToolFormat
from octavo.server.parsing.formats.json_tags import JSON
from octavo.server.parsing.reasoning import ReasoningFormat, is_left_open, starts_in_reasoning
from octavo.server.render.messages import template_messages
from octavo.server.render.tools import ToolWish, tool_wish
from octavo.server.serving import Serving

PROMPT_END_TOKENS = 48
"""Enough to see whether the template has opened the reasoning."""


@dataclass(frozen=True, kw_only=True)
class AnswerPlan:
    """Made from the body alone, so rendering and reading come to the same one."""

    wish: ToolWish
    template: str | None
    detected: Detected
    tools: ToolFormat | None
    """How calls are written; None where none are expected."""
    lists_tools: bool
    """The template cannot show tools, so a system message does."""

    @property
    def reasoning(self) -> ReasoningFormat | None:
        return self.detected.reasoning

    @property
    def is_plain(self) -> bool:
        """All of the answer is content."""
        return self.tools is None and self.reasoning is None and self.detected.regions is None

    @property
    def literals(self) -> tuple[str, ...]:
        """Markers that have to be seen to read the answer."""
        tools = self.tools.literals if self.tools is not None else ()
        regions = self.detected.regions.literals if self.detected.regions is not None else ()
        return (*tools, *(self.reasoning.literals if self.reasoning is not None else ()), *regions)


def answer_plan(serving: Serving, body: ConversationBody) -> AnswerPlan:
    """Raises RequestError if the model cannot do what the body wants."""
    wish = tool_wish(body)
    template = serving.tokenizer.template_for(body.chat_template, wish.is_active)
    detected = serving.detected(template)
    tools, lists_tools = _calls(wish, detected)
    return AnswerPlan(wish=wish, template=template, detected=detected, tools=tools, lists_tools=lists_tools)


def _calls(wish: ToolWish, detected: Detected) -> tuple[ToolFormat | None, bool]:
    if not wish.is_active:
        return None, False
    if detected.shows_tools:
        # What a response_template says can be read, but not forced.
        known = None if detected.regions is not None else detected.tools
        if wish.mode == "required":
            return known or JSON, False
        if known is not None and any(tool.is_strict for tool in wish.tools):
            known = known.as_shaped
        return known, False
    if wish.mode == "auto":
        raise RequestError(
            "This model's chat template cannot show tools to the model, so it would not know when to call "
            "one. Set tool_choice to 'required' or to a function, which works with any model, or to 'none'; "
            "or start the server with a --chat-template that shows tools.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="tools",
        )
    return JSON, True


def is_thinking(
    serving: Serving, body: ConversationBody, reasoning: ReasoningFormat, prompt_token_ids: list[int]
) -> bool:
    """Whether the answer begins inside reasoning."""
    if body.continue_final_message:
        return is_left_open(reasoning, _continued(body))
    return starts_in_reasoning(reasoning, prompt_end(serving, prompt_token_ids))


def goes_on_thinking(body: ConversationBody, reasoning: ReasoningFormat | None) -> bool:
    """Whether an answer that begins inside reasoning goes on with a thought that the body has begun."""
    return bool(body.continue_final_message) and not _continued(body).rstrip().endswith(
        () if reasoning is None else reasoning.begins
    )


def _continued(body: ConversationBody) -> str:
    return template_messages(body.messages[-1:], None)[0]["content"] or ""


def is_done_thinking(serving: Serving, reasoning: ReasoningFormat, prompt_token_ids: list[int]) -> bool:
    """Whether the template has closed the reasoning before the answer begins."""
    return prompt_end(serving, prompt_token_ids).rstrip().endswith(reasoning.ends)


def prompt_end(serving: Serving, prompt_token_ids: list[int]) -> str:
    return serving.tokenizer.decode(prompt_token_ids[-PROMPT_END_TOKENS:], skip_special_tokens=False)
