"""Chats to prompt text through Jinja templates, as `transformers.apply_chat_template` renders them.

Knows messages and templates, not ids. Everything a template sees is plain data, copied and bounded.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from octavo.base.errors import ConfigError, ErrorCode, ModelFileError, RequestError
from octavo.tokens.template_budget import Budget, TemplateLimitError, run_limited
from octavo.tokens.template_sandbox import compile_template, string_constants

if TYPE_CHECKING:
    from octavo.tokens.forgery import Guard

log = logging.getLogger(__name__)

MAX_DATA_DEPTH = 64
MAX_EXTRA_CHARS = 1 << 20
CACHED_TEMPLATES = 64
TRIALS: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "Hello."}],
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."},
     {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Bye."}],
)  # fmt: skip
"""Chats that every template of a model is run on when it is loaded."""

TemplateRun = Callable[[str, dict[str, Any], int], str]
"""As `run_template`."""
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_ASKS_FOR_NONE = re.compile(
    r"message(?:\.content|\[['\"]content['\"]\])\s+is\s+(?:not\s+)?[nN]one\b(?!\s+or\b)"
)
_INPUTS = {"messages", "conversation", "tools", "documents", "chat_template", "template_kwargs"}
_SWITCHES = {"add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation"}
_OUTPUTS = {"max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"}
_FUNCTIONS = {"raise_exception", "strftime_now", "range", "namespace", "dict"}
_JINJA = {"self", "loop", "caller", "varargs", "kwargs"}
_RESERVED = frozenset(_INPUTS | _SWITCHES | _OUTPUTS | _FUNCTIONS | _JINJA)


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """One chat to render; see `Tokenizer.prepare_chat`."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    """A template, or the name of one of the model's."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    run: TemplateRun | None = None
    """Who runs the template, if it is not to run here."""

    def user_values(self) -> Iterator[Any]:
        """Everything that comes from the user and may reach the prompt."""
        yield self.messages
        yield self.tools
        yield self.documents
        yield dict(self.template_kwargs)


def read_template(value: str) -> str:
    """Return a template given as such or as a file's name. Raises ConfigError."""
    if "{" in value or "\n" in value:
        return value
    path = Path(value).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"chat_template {value!r} is neither a Jinja template nor a file. Give one or the other.",
            param="chat_template",
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The chat template file cannot be read: {error}.", param="chat_template"
        ) from error


def choose_template(templates: Mapping[str, str], options: ChatOptions) -> str:
    """Pick the template for a chat. Raises RequestError when the model has none that fits."""
    wish = options.chat_template
    if wish is not None:
        return templates.get(wish, wish)
    if options.tools and "tool_use" in templates:
        return templates["tool_use"]
    if "default" in templates:
        return templates["default"]
    if templates:
        raise RequestError(
            f"This model has several chat templates and none is the default. Name one of "
            f"{', '.join(sorted(templates))} as chat_template.",
            param="chat_template",
        )
    raise RequestError(
        "This model has no chat template, so it cannot take messages. Use text completions, or start the "
        "server with --chat-template FILE.",
        param="messages",
    )


@lru_cache(maxsize=CACHED_TEMPLATES)
def words_of(source: str) -> frozenset[str]:
    """The strings that a template compares roles with, or uses otherwise; none if it does not compile."""
    try:
        return string_constants(source)
    except (jinja2.TemplateError, TemplateLimitError):
        return frozenset()


def check_templates(templates: Mapping[str, str]) -> None:
    """Look at a model's templates when it is loaded. Raises ModelFileError for a hostile one.

    One that merely does not compile is told in the log: the model may still complete text. Templates may
    refuse chats; one that spends all it may on a plain one is hostile.
    """
    for name, source in templates.items():
        try:
            _compiled(source)
        except RequestError as error:
            _check_harmless(name, error)
            log.warning("%s Chats with the template %r will be refused.", error.message, name)
            continue
        for messages in TRIALS:
            try:
                run_template(
                    source, {"messages": messages, "add_generation_prompt": True, "tools": None}, 256
                )
            except RequestError as error:
                _check_harmless(name, error)


def _check_harmless(name: str, error: RequestError) -> None:
    if isinstance(error.__cause__, TemplateLimitError | RecursionError):
        raise ModelFileError(
            f"{error.message} It is the model's template {name!r}; give another one with --chat-template."
        ) from error


@lru_cache(maxsize=CACHED_TEMPLATES)
def _compiled(source: str) -> jinja2.Template:
    try:
        return compile_template(source)
    except TemplateLimitError as error:
        raise _failed(f"The chat template is refused: {error}.") from error
    except jinja2.TemplateSyntaxError as error:
        raise _failed(
            f"The chat template is not valid Jinja: line {error.lineno}: {error.message}."
        ) from error


def _failed(message: str) -> RequestError:
    return RequestError(message, code=ErrorCode.TEMPLATE_FAILED, param="messages")


def checked(options: ChatOptions) -> ChatOptions:
    """Return a copy made of plain data. Raises RequestError naming the parameter at fault."""
    if not isinstance(options.messages, list | tuple) or not options.messages:
        raise RequestError("messages is empty; a chat needs at least one message.", param="messages")
    for index, message in enumerate(options.messages):
        if not isinstance(message, Mapping):
            raise RequestError(
                f"messages[{index}] must be an object with a role.", param=f"messages[{index}]"
            )
    for name in ("tools", "documents"):
        entries = getattr(options, name)
        if entries is None:
            continue
        if not isinstance(entries, list | tuple) or not all(isinstance(entry, Mapping) for entry in entries):
            raise RequestError(f"{name} must be a list of objects.", param=name)
    if options.continue_final_message and options.add_generation_prompt:
        raise RequestError(
            "continue_final_message and add_generation_prompt exclude each other: one goes on with the last "
            "message, the other opens a new one. Set add_generation_prompt to false.",
            param="continue_final_message",
        )
    for name in options.template_kwargs:
        if name in _RESERVED or name.startswith("_") or name.endswith("_token"):
            raise RequestError(
                f"chat_template_kwargs cannot set {name!r}, which belongs to the engine. Use the "
                "request's own field if there is one.",
                param=f"chat_template_kwargs.{name}",
            )
    return dataclasses.replace(
        options,
        messages=[_without_nulls(_plain(message, "messages", 0)) for message in options.messages],
        tools=_plain(options.tools, "tools", 0),
        documents=_plain(options.documents, "documents", 0),
        template_kwargs=_plain(options.template_kwargs, "chat_template_kwargs", 0),
    )


def _plain(value: Any, where: str, depth: int) -> Any:
    """Copy JSON-like data with exact types: a template must not get at anything with methods of its own."""
    if depth > MAX_DATA_DEPTH:
        raise RequestError(f"{where} is nested more than {MAX_DATA_DEPTH} levels deep.", param=where)
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where, depth + 1) for item in value]
    raise RequestError(
        f"{where} holds a {type(value).__name__}; only text, numbers, lists and objects can be rendered.",
        param=where,
    )


def _without_nulls(message: dict[str, Any]) -> dict[str, Any]:
    """Templates take a missing field better than a null; reasoning goes by several names."""
    present = {key: value for key, value in message.items() if value is not None}
    reasoning = next((present[name] for name in _REASONING_FIELDS if name in present), None)
    if reasoning is None:
        return present
    return {"thinking": reasoning, **present, "reasoning_content": reasoning}


def _with_content(message: dict[str, Any], source: str) -> dict[str, Any]:
    """An answer of calls alone has no content. Templates that ask whether it is none want none; the others
    take it for text.
    """
    if "content" in message or message.get("role") != "assistant":
        return message
    return {**message, "content": _no_content(source)}


@lru_cache(maxsize=CACHED_TEMPLATES)
def _no_content(source: str) -> str | None:
    return None if _ASKS_FOR_NONE.search(source) else ""


def render(source: str, options: ChatOptions, special_tokens: Mapping[str, str], guard: Guard | None) -> str:
    """Render checked options. With a guard, special tokens in user text come out as its marks."""
    messages, tag = options.messages, ""
    if guard is not None:
        messages = guard.mark(messages)
    if options.continue_final_message:
        tag = f"\U000f0001{secrets.token_hex(8)}\U000f0001"
        messages = [*messages[:-1], _tagged(messages[-1], tag)]
    values = {
        **special_tokens,
        **(guard.mark(dict(options.template_kwargs)) if guard else options.template_kwargs),
        "messages": [_with_content(message, source) for message in messages],
        "tools": guard.mark(options.tools) if guard else options.tools,
        "documents": guard.mark(options.documents) if guard else options.documents,
        "add_generation_prompt": options.add_generation_prompt,
    }
    text = (options.run or run_template)(source, values, sum(map(_chars, options.user_values())))
    return _cut_at_tag(text, tag) if tag else text


def _chars(value: Any) -> int:
    """Size of data, to give long chats room in proportion."""
    if isinstance(value, str):
        return len(value) + 8
    if isinstance(value, dict):
        return sum(_chars(key) + _chars(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_chars, value))
    return 8


def run_template(source: str, values: dict[str, Any], input_chars: int) -> str:
    """Compile and run a template on plain data, counting what it does. Raises RequestError.

    input_chars: size of the data, which gives the template its room.
    """
    template = _compiled(source)
    budget = Budget(MAX_EXTRA_CHARS + 8 * input_chars)
    try:
        return run_limited(budget, lambda: template.generate(values))
    except jinja2.exceptions.SecurityError as error:
        raise _failed(f"The chat template did something that is not allowed: {error}.") from error
    except jinja2.TemplateError as error:
        raise _failed(
            f"The chat template refused the messages: {error.message or type(error).__name__}"
        ) from error
    except TemplateLimitError as error:
        raise _failed(f"The chat template was stopped: {error}.") from error
    except RecursionError as error:
        raise _failed("The chat template was stopped: it calls itself without end.") from error
    except Exception as error:  # templates run into Python's errors on messages they do not expect
        raise _failed(
            f"The chat template cannot render these messages: {type(error).__name__}: {error}"
        ) from error


def _tagged(message: dict[str, Any], tag: str) -> dict[str, Any]:
    """The last message with a tag at the end of its text. A space follows to see whether it was trimmed."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": content + tag + " "}
    if isinstance(content, list):
        for index in range(len(content) - 1, -1, -1):
            part = content[index]
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                tagged = {**part, "text": part["text"] + tag + " "}
                return {**message, "content": [*content[:index], tagged, *content[index + 1 :]]}
    raise RequestError(
        "continue_final_message needs text in the last message to go on from.", param="continue_final_message"
    )


def _cut_at_tag(text: str, tag: str) -> str:
    end = text.rfind(tag)
    if end < 0:
        raise RequestError(
            "continue_final_message does not work with this model's chat template: it drops or changes "
            "the end of the last message.",
            param="continue_final_message",
        )
    was_trimmed = not text.startswith(" ", end + len(tag))
    return text[:end].rstrip() if was_trimmed else text[:end]
