"""Sampling parameters for a planned answer: its forced form, its thinking budget, the markers to be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.messages.params import SamplingParams
from octavo.messages.samplers import ThinkingBudget
from octavo.messages.structured import StructuredOutputsParams
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.parsing import channels
from octavo.server.parsing.behind_reasoning import (
    ANALYSIS,
    ANY_TEXT,
    PLACE,
    as_format,
    behind_reasoning,
    form_in,
    in_channels,
    moved_origins,
    with_format,
)
from octavo.server.parsing.forced import CallForms, ForcedTool, Form, either, sequence
from octavo.server.parsing.reasoning import HARMONY, ReasoningFormat
from octavo.server.render.answer_plan import AnswerPlan, is_done_thinking, is_thinking
from octavo.server.render.tools import ToolWish
from octavo.server.serving import Serving

Wanted = tuple[StructuredOutputsParams | None, Mapping[str, str]]
"""A form, and where its parts stand in the body."""


def planned_params(
    serving: Serving,
    body: ChatBody,
    plan: AnswerPlan,
    params: SamplingParams,
    origins: Mapping[str, str],
    prompt_token_ids: list[int],
) -> tuple[SamplingParams, Mapping[str, str]]:
    """The parameters with what the plan adds, and where the parts of the form stand in the body."""
    added: dict[str, Any] = {}
    if not plan.is_plain and params.skip_special_tokens:
        added["shown_special_token_ids"] = serving.tokenizer.special_ids_in(plan.literals)
    wanted, origins = _with_calls(plan, params.structured_outputs, origins)
    reasoning = plan.reasoning
    is_open = reasoning is not None and is_thinking(serving, body, reasoning, prompt_token_ids)
    if reasoning is not None and wanted is not None:
        # Forms with gpt-oss's calls bring the thought themselves.
        has_thought = reasoning is HARMONY and wanted is not params.structured_outputs
        if not has_thought and not is_done_thinking(serving, reasoning, prompt_token_ids):
            end = serving.tokenizer.encode(reasoning.ends[0], False)
            wanted, origins = behind_reasoning(wanted, origins, reasoning, is_open=is_open, end_token_ids=end)
    if wanted is not params.structured_outputs:
        added["structured_outputs"] = wanted
    if body.thinking_token_budget is not None:
        added["thinking_budget"] = _budget(serving, reasoning, body.thinking_token_budget, is_open)
    return (msgspec.structs.replace(params, **added) if added else params), origins


def _with_calls(
    plan: AnswerPlan, wanted: StructuredOutputsParams | None, origins: Mapping[str, str]
) -> Wanted:
    """The form of an answer whose calls are forced, or have to keep to their schemas."""
    tools, wish = plan.tools, plan.wish
    is_strict = any(tool.is_strict for tool in wish.tools)
    if tools is None or (wish.mode == "auto" and wanted is None and not is_strict):
        return wanted, origins
    forms = CallForms(tools)
    if wish.mode == "required":
        calls = _required(forms, wish, f"{PLACE}.elements[1]" if forms.shape.thought else PLACE)
        if forms.shape.thought:
            calls = sequence([ANALYSIS, calls])
        return StructuredOutputsParams(structural_tag={"format": calls}), forms.origins
    if wanted is not None:
        return _calls_or(forms, wish, wanted, origins)
    if forms.shape.thought:
        _, _, place = in_channels(ANY_TEXT)
        form, _, _ = in_channels(ANY_TEXT, _required(forms, wish, place))
    else:
        form = forms.checked(_forced(wish), is_single=wish.is_single, place=PLACE)
    return StructuredOutputsParams(structural_tag={"format": form}), forms.origins


def _required(forms: CallForms, wish: ToolWish, place: str) -> Form:
    return forms.required(_forced(wish), is_single=wish.is_single, place=place)


def _calls_or(
    forms: CallForms, wish: ToolWish, wanted: StructuredOutputsParams, origins: Mapping[str, str]
) -> Wanted:
    """The model may call or answer in the form that the body wants."""
    answer, old = as_format(wanted)
    if answer is None:
        raise RequestError(
            "Tools cannot be combined with this kind of structured output; use json_schema, or set "
            "tool_choice to 'none' or 'required'.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="tool_choice",
        )
    if forms.shape.thought:
        _, place, calls_place = in_channels(answer)
        form, _, _ = in_channels(answer, _required(forms, wish, calls_place))
    else:
        form = either([_required(forms, wish, f"{PLACE}.elements[0]"), answer])
        place = f"{PLACE}.elements[1]"
    moved = moved_origins(origins, old, place + form_in(answer))
    return with_format(wanted, form), {**moved, **forms.origins}


def _forced(wish: ToolWish) -> list[ForcedTool]:
    """Where the model chooses, tools that are not strict may be called with any arguments."""
    return [
        ForcedTool(
            name=tool.name,
            parameters=tool.parameters,
            origin=tool.origin,
            is_checked=tool.is_strict or wish.mode == "required",
        )
        for tool in wish.tools
    ]


def _budget(
    serving: Serving, reasoning: ReasoningFormat | None, budget: int, is_open: bool
) -> ThinkingBudget:
    if reasoning is None:
        raise RequestError(
            "thinking_token_budget needs a model that reasons, and this one's chat template has no signs of "
            "it. Leave it out, or name the model's format with --reasoning-parser.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="thinking_token_budget",
        )
    begins = reasoning.begins or (channels.ANALYSIS,)
    return ThinkingBudget(
        budget=budget,
        start_token_ids=serving.tokenizer.encode(begins[0], False),
        end_token_ids=serving.tokenizer.encode(reasoning.ends[0], False),
        is_open=is_open,
    )
