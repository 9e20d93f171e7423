"""TGI's body -> prompt and parameters."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import msgspec

from octavo.base.errors import RequestError
from octavo.server.body import validate
from octavo.server.openai.schema.generation import GenerationBody
from octavo.server.render.plain import render_plain
from octavo.server.render.rendered import Rendered
from octavo.server.serving import Serving
from octavo.server.tgi.schema import DEFAULT_NEW_TOKENS, TgiBody, TgiGrammar, TgiParameters

SEED_BITS = 53
"""Seeds that we draw go through every JSON reader unharmed."""

NEUTRAL: dict[str, Any] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""TGI knows no sampling defaults of checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What is asked for, ready for the engine."""

    inputs: str
    parameters: TgiParameters
    rendered: Rendered
    seed: int | None
    """Given or drawn; None where nothing is drawn by it."""


def render_tgi(serving: Serving, body: TgiBody, is_streamed: bool) -> Continuation:
    """Check everything and tokenize. May be slow on long text: call it in a thread then."""
    wishes = body.parameters or TgiParameters()
    seed = _seed(wishes)
    plain = validate(_fields(body, wishes, seed, is_streamed), GenerationBody)
    is_default = "max_new_tokens" not in wishes.model_fields_set
    rendered = render_plain(
        serving,
        plain,
        body.inputs,
        param="inputs",
        logprobs=(wishes.top_n_tokens or 0) if is_streamed or wishes.wants_details else None,
        default_max_tokens=DEFAULT_NEW_TOKENS if is_default else None,
    )
    return Continuation(inputs=body.inputs, parameters=wishes, rendered=rendered, seed=seed)


def _fields(body: TgiBody, wishes: TgiParameters, seed: int | None, is_streamed: bool) -> dict[str, Any]:
    """The body in the words of a generation body."""
    fields = {
        **NEUTRAL,
        "temperature": _temperature(wishes),
        "seed": seed,
        "stream": is_streamed,
        "add_special_tokens": body.add_special_tokens,
        "frequency_penalty": wishes.frequency_penalty,
        "truncate_prompt_tokens": wishes.truncate,
        "stop": wishes.stop or None,
        # TGI's answers end with the stop sequence that ended them.
        "include_stop_str_in_output": True,
        "prompt_logprobs": 0 if wishes.decoder_input_details else None,
        **_grammar(wishes.grammar),
    }
    for name in ("top_p", "top_k", "typical_p", "repetition_penalty"):
        value = getattr(wishes, name)
        if value is not None:
            fields[name] = value
    if "max_new_tokens" in wishes.model_fields_set:
        fields["max_tokens"] = wishes.max_new_tokens
    return fields


def _temperature(wishes: TgiParameters) -> float:
    if wishes.temperature is not None:
        return wishes.temperature
    return 1.0 if wishes.wants_sampling else 0.0


def _seed(wishes: TgiParameters) -> int | None:
    if wishes.seed is not None or not wishes.wants_sampling:
        return wishes.seed
    return secrets.randbits(SEED_BITS)


def _grammar(grammar: TgiGrammar | None) -> dict[str, Any]:
    if grammar is None:
        return {}
    if grammar.type == "regex":
        if not isinstance(grammar.value, str):
            raise RequestError("grammar.value must be a regular expression.", param="grammar.value")
        return {"structured_outputs": {"regex": grammar.value}}
    schema = _object(grammar.value)
    if grammar.type == "json_schema":
        schema = _object(schema.get("schema"))
    return {"structured_outputs": {"json": schema}}


def _object(value: Any) -> dict[str, Any]:
    """A JSON schema, as an object or as the text of one."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise RequestError("grammar.value must be a JSON schema (an object).", param="grammar.value")
    return value
