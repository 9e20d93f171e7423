"""Ollama's bodies -> what every protocol hands to the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.body import validate
from octavo.server.errors import quoted
from octavo.server.ollama.messages import chat_messages, check_no_images
from octavo.server.ollama.models import thinks
from octavo.server.ollama.schema.chat import OllamaChatBody
from octavo.server.ollama.schema.common import AnswerBody
from octavo.server.ollama.schema.generate import OllamaGenerateBody
from octavo.server.ollama.schema.options import OllamaOptions
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.openai.schema.generation import GenerationBody
from octavo.server.render.chat import render_chat
from octavo.server.render.plain import render_plain
from octavo.server.render.rendered import Prompt, Rendered
from octavo.server.render.sampling import check_room
from octavo.server.render.text import ids_prompt
from octavo.server.serving import Serving

THINK_LEVELS = ("low", "medium", "high")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A body as the engine takes it."""

    body: ChatBody | None
    """None where the prompt is plain text."""
    rendered: Rendered


def render_ollama_chat(serving: Serving, body: OllamaChatBody) -> Question:
    """Check everything and apply the template. May be slow on long text: call it in a thread then."""
    document = _shared_fields(serving, body)
    document["messages"] = chat_messages(body.messages)
    # A last message of the assistant is the beginning of the answer.
    last = body.messages[-1]
    if last.role == "assistant" and not last.tool_calls:
        document["continue_final_message"] = True
    if body.tools:
        _check_shows_tools(serving)
        document["tools"] = body.tools
    return _ask(serving, body, document)


def _check_shows_tools(serving: Serving) -> None:
    """Ollama's API has no tool_choice, by which calls could be forced all the same."""
    if not serving.detected(serving.tokenizer.template_for(None, True)).shows_tools:
        raise RequestError(
            "This model's chat template cannot show tools to the model, so it would not know when to call "
            "one. Leave tools out, or ask a model whose capabilities, by /api/show, include tools.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="tools",
        )


def render_ollama_generate(serving: Serving, body: OllamaGenerateBody) -> Question:
    """The prompt as a user's message, or (raw) as it stands."""
    _check_generate(body)
    document = _shared_fields(serving, body)
    if body.raw or _has_no_template(serving, body):
        plain = validate(document, GenerationBody)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        rendered = render_plain(serving, plain, body.prompt or "", param="prompt", logprobs=logprobs)
        return Question(body=None, rendered=_behind(serving, body.context, rendered))
    system = [{"role": "system", "content": body.system}] if body.system else []
    document["messages"] = [*system, {"role": "user", "content": body.prompt}]
    document["chat_template"] = body.template or None
    question = _ask(serving, body, document)
    return replace(question, rendered=_behind(serving, body.context, question.rendered))


def _ask(serving: Serving, body: AnswerBody, document: dict[str, Any]) -> Question:
    document |= {"logprobs": body.logprobs, "top_logprobs": body.top_logprobs, **_thinking(serving, body)}
    asked = validate(document, ChatBody)
    return Question(body=asked, rendered=render_chat(serving, asked))


def _shared_fields(serving: Serving, body: AnswerBody) -> dict[str, Any]:
    options = body.options or OllamaOptions()
    return {
        **options.fields(serving.engine.max_request_tokens),
        **_format(body.format),
        "stream": body.wants_stream,
    }


def _format(wanted: Any) -> dict[str, Any]:
    """`format`: 'json' for any object, or a JSON schema."""
    if wanted is None or wanted == "":
        return {}
    if wanted == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(wanted, dict):
        schema = {"name": "format", "schema": wanted, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    raise RequestError("format must be 'json' or a JSON schema (an object).", param="format")


def _thinking(serving: Serving, body: AnswerBody) -> dict[str, Any]:
    """`think`: on, off, or how much. Without a word about it, the model does as it does by default."""
    think = body.think
    if think is None:
        return {}
    if isinstance(think, str) and think not in THINK_LEVELS:
        raise RequestError(f"think must be true, false or one of {', '.join(THINK_LEVELS)}.", param="think")
    if think is not False and not thinks(serving):
        raise RequestError(
            f"{quoted(body.model)} does not support thinking; leave think out.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="think",
        )
    is_on = think is not False
    # The two names under which templates know the switch.
    found: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": is_on, "thinking": is_on}}
    if isinstance(think, str):
        found["reasoning_effort"] = think
    return found


def _check_generate(body: OllamaGenerateBody) -> None:
    check_no_images(body.images, "images")
    if body.suffix:
        raise RequestError(
            "suffix is not supported: put the text after the gap into the prompt, with raw and the marks "
            "that the model was trained with.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param="suffix",
        )
    if body.raw and (body.system or body.template or body.context):
        raise RequestError("raw takes the prompt as it is; leave out system, template and context.")


def _has_no_template(serving: Serving, body: OllamaGenerateBody) -> bool:
    """A model that was made to continue texts gets the prompt as a text."""
    return serving.tokenizer.chat_template is None and not (body.system or body.template)


def _behind(serving: Serving, context: list[int] | None, rendered: Rendered) -> Rendered:
    """The prompt behind the tokens of earlier turns."""
    if not context:
        return rendered
    before = ids_prompt(serving, context, keep=None, param="context").token_ids
    (prompt,) = rendered.prompts
    token_ids = before + prompt.token_ids
    check_room(serving, len(token_ids), rendered.max_tokens, "context")
    return replace(rendered, prompts=[Prompt(token_ids=token_ids, max_tokens=prompt.max_tokens)])
