"""Which parser reads a conversation's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from octavo.server.parsing.events import PlainParser, StreamParser
from octavo.server.parsing.machine import AnswerReader, Machine
from octavo.server.parsing.output import Output, call_id, short_id
from octavo.server.parsing.regions import RegionReader
from octavo.server.render.answer_plan import (
    AnswerPlan,
    answer_plan,
    goes_on_thinking,
    is_thinking,
    prompt_end,
)

if TYPE_CHECKING:
    from octavo.server.openai.schema.chat import ChatBody
    from octavo.server.serving import Serving


def parser_maker(serving: Serving, body: ChatBody, prompt_token_ids: list[int]) -> Callable[[], StreamParser]:
    """Makes one parser per answer."""
    plan = answer_plan(serving, body)
    if plan.is_plain:
        return PlainParser
    regions = plan.detected.regions
    if regions is not None and plan.tools is None:
        prompt = prompt_end(serving, prompt_token_ids)
        return lambda: Machine(RegionReader(regions, prompt, parses_calls=plan.wish.is_active), _output(plan))
    reasoning = plan.reasoning
    is_open = reasoning is not None and is_thinking(serving, body, reasoning, prompt_token_ids)
    goes_on = is_open and goes_on_thinking(body, reasoning)
    return lambda: Machine(
        AnswerReader(plan.tools, reasoning, starts_in_reasoning=is_open), _output(plan, goes_on=goes_on)
    )


def _output(plan: AnswerPlan, *, goes_on: bool = False) -> Output:
    is_short = plan.tools is not None and plan.tools.id_style == "short"
    return Output(
        make_id=short_id if is_short else call_id,
        schemas={tool.name: tool.parameters for tool in plan.wish.tools},
        max_calls=1 if plan.wish.is_single else None,
        in_reasoning=goes_on,
    )
