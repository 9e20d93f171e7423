"""The form of an answer where the model thinks first: what it thinks has any form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from octavo.messages.structured import StructuredOutputsParams
from octavo.server.parsing.forced import NOTHING, Form, const, either, sequence
from octavo.server.parsing.reasoning import HARMONY, ReasoningFormat

PLACE = "structured_outputs.structural_tag.format"
ANY_TEXT: Form = {"type": "any_text"}
BLANK_LINE: Form = {"type": "or", "elements": [{"type": "const_string", "value": "\n\n"}, NOTHING]}
FINAL = "<|channel|>final<|message|>"
ANALYSIS = {"type": "tag", "begin": "<|channel|>analysis<|message|>", "content": ANY_TEXT, "end": "<|end|>"}


def behind_reasoning(
    wish: StructuredOutputsParams,
    origins: Mapping[str, str],
    reasoning: ReasoningFormat,
    *,
    is_open: bool,
    end_token_ids: list[int],
) -> tuple[StructuredOutputsParams, Mapping[str, str]]:
    """The same wish for what comes behind the reasoning, and where its parts stand then."""
    if is_open and len(end_token_ids) == 1:
        return msgspec.structs.replace(wish, begin_after=end_token_ids), origins
    form, place = as_format(wish)
    if form is None:
        return wish, origins
    wrapped, path = _wrapped(form, reasoning, is_open)
    return with_format(wish, wrapped), moved_origins(origins, place, path)


def with_format(wish: StructuredOutputsParams, form: Form) -> StructuredOutputsParams:
    """The options of a wish, for another form."""
    nothing = dict.fromkeys(("json", "regex", "choice", "grammar", "json_object"))
    return msgspec.structs.replace(wish, **nothing, structural_tag={"format": form})


def as_format(wish: StructuredOutputsParams) -> tuple[Form | None, str]:
    """A wish as a format of a structural tag, and the name that its place had. None: it has no such form."""
    kind = wish.kind
    place = f"structured_outputs.{kind}"
    value: Any = getattr(wish, kind)
    if kind in ("json", "structural_tag") and isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            return None, place  # Refused later, by those who know how to say it.
    if kind == "json":
        return {"type": "json_schema", "json_schema": value}, place
    if kind == "json_object":
        return {"type": "json_schema", "json_schema": {"type": "object"}}, place
    if kind == "regex":
        return {"type": "regex", "pattern": value}, place
    if kind == "grammar":
        return {"type": "grammar", "grammar": value}, place
    if kind == "choice":
        return either([{"type": "const_string", "value": text} for text in value]), place
    return (value.get("format") if isinstance(value, dict) else None), f"{place}.format"


def moved_origins(origins: Mapping[str, str], old: str, new: str) -> Mapping[str, str]:
    """Names of places of which `old` has become `new`."""
    return {
        new + name.removeprefix(old) if name.startswith(old) else name: origin
        for name, origin in origins.items()
    }


def form_in(form: Form) -> str:
    """Where in a form the part is that a caller wrote."""
    inner = {"json_schema": ".json_schema", "regex": ".pattern", "grammar": ".grammar"}
    return inner.get(form.get("type", ""), "")


def in_channels(text: Form, calls: Form | None = None) -> tuple[Form, str, str]:
    """gpt-oss's answers: a thought, then text or calls. Also where the two stand in the result."""
    forms = [
        sequence([ANALYSIS, *const("<|start|>assistant" + FINAL), text]),
        sequence([*const(FINAL), text]),
    ]
    if calls is not None:
        forms.append(sequence([ANALYSIS, calls]))
    return either(forms), f"{PLACE}.elements[0].elements[2]", f"{PLACE}.elements[2].elements[1]"


def _wrapped(form: Form, reasoning: ReasoningFormat, is_open: bool) -> tuple[Form, str]:
    """The form behind reasoning, and where it stands in the result."""
    if reasoning is HARMONY:
        answer, place, _ = in_channels(form)
        return answer, place + form_in(form)
    thinks: Form = {
        "type": "tag",
        "begin": "" if is_open else reasoning.begins[0],
        "content": ANY_TEXT,
        "end": list(reasoning.ends),
    }
    thought = sequence([thinks, BLANK_LINE, form])
    if is_open:
        return thought, f"{PLACE}.elements[2]{form_in(form)}"
    return either([thought, form]), f"{PLACE}.elements[0].elements[2]{form_in(form)}"
