"""POST /v1/chat/completions/render and /v1/completions/render: a request up to the engine's door.

The body is checked and rendered exactly as for an answer, so what is refused there is refused here.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.body import read
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.openai.schema.completion import CompletionBody
from octavo.server.openai.schema.render import RenderedPrompt, RenderReply
from octavo.server.render.chat import render_chat
from octavo.server.render.completion import render_completion
from octavo.server.render.rendered import Prompt, Rendered
from octavo.server.replies import json_reply, off_loop_if_long, weighed
from octavo.server.serving import Serving
from octavo.server.slow_parts import with_slow_parts

OURS = ("output_kind", "bad_words_token_ids", "shown_special_token_ids", "logits_processors")
"""Parameters between server and engine that no caller set."""


async def render_chat_completion(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, ChatBody)
    model = serving.check_model(body.model)
    rendered = await off_loop_if_long(weighed(num_bytes, body.chat_template), render_chat, serving, body)
    await with_slow_parts(serving, rendered)
    return json_reply(await off_loop_if_long(num_bytes, _reply, serving, rendered, model))


async def render_text_completion(serving: Serving, request: Request) -> Response:
    body, num_bytes = await read(request, CompletionBody)
    model = serving.check_model(body.model)
    rendered = await off_loop_if_long(num_bytes, render_completion, serving, body)
    await with_slow_parts(serving, rendered)
    return json_reply(await off_loop_if_long(num_bytes, _reply, serving, rendered, model))


def _reply(serving: Serving, rendered: Rendered, model: str) -> RenderReply:
    values: dict[str, Any] = msgspec.to_builtins(rendered.params)
    return RenderReply(
        model=model,
        prompts=[_prompt(serving, rendered, prompt) for prompt in rendered.prompts],
        sampling_params={name: value for name, value in values.items() if name not in OURS},
    )


def _prompt(serving: Serving, rendered: Rendered, prompt: Prompt) -> RenderedPrompt:
    has_tokens = prompt.vectors is None
    has_text = has_tokens and not serving.engine.config.model.skip_tokenizer_init
    room = serving.engine.max_request_tokens - len(prompt.token_ids)
    return RenderedPrompt(
        serving.tokenizer.decode(prompt.token_ids, skip_special_tokens=False) if has_text else None,
        prompt.token_ids if has_tokens else [],
        len(prompt.token_ids),
        rendered.params_for(prompt).max_tokens or room,
    )
