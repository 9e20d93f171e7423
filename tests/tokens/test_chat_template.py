"""Chats to prompts: as transformers renders them, and on a leash."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from chats import rendered
from small_tokenizers import CHATML, as_tokenizer, byte_level_backend, save

from octavo.base.errors import ConfigError, ErrorCode, ModelFileError, RequestError
from octavo.tokens.chat_template import ChatOptions, check_templates, read_template
from octavo.tokens.source import TokenizerSource
from octavo.tokens.template_budget import Budget, TemplateLimitError
from octavo.tokens.tokenizer import Tokenizer, load_tokenizer

LLAMA2 = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
    {%- set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}
    {%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}
    {%- else %}{{ ' ' ~ message['content'] | trim ~ ' ' ~ eos_token }}{% endif %}
{%- endfor %}"""
LLAMA3 = """{%- set ns = namespace(count=0) %}{{- bos_token }}
{%- if tools %}<|tools|>{% for tool in tools %}
{{ tool | tojson(indent=2) }}{{ "\n" if not loop.last }}{% endfor %}{% endif %}
{% for message in messages %}
    {% set ns.count = ns.count + 1 %}
<|im_start|>{{ message.role }} {{ ns.count }}

{% if message.content is string %}{{ message.content }}
{% else %}{% for part in message.content %}
    {% if part.type == 'text' %}{{- part.text -}}{% endif %}
{% endfor %}{% endif %}
{% if message.tool_calls is defined %}{{ message.tool_calls | tojson }}{% endif %}<|im_end|>
{%- endfor %}
{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"""
MISTRAL = """{{ bos_token }}{% for message in messages %}
{%- if message.role == 'user' %}[INST]{{ message.content }}[/INST]
{%- elif message.role == 'assistant' %}
    {%- generation %}{{ message.content + eos_token }}{% endgeneration %}
{%- else %}{% continue %}{% endif %}{% endfor %}
{%- macro shout(x) %}{{ x | upper }}!{% endmacro %}{{ shout(extra | default('none')) }}"""
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be <b>brief</b> & kind."},
    {"role": "user", "content": '  Hi "you" 日本 '},
    {"role": "assistant", "content": "Hello", "name": None},
    {"role": "user", "content": "Bye"},
]
PARTS = [
    {
        "role": "user",
        "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}],
    }
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"é": "<|x|>", "n": 1.5}}}]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    transformers = pytest.importorskip("transformers")
    folder: Path = tmp_path_factory.mktemp("chat")
    save(byte_level_backend(), folder, bos_token="<|im_start|>", eos_token="<|im_end|>")
    return load_tokenizer(TokenizerSource(folder=folder)), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "template", [CHATML, LLAMA2, LLAMA3, MISTRAL], ids=["chatml", "llama2", "llama3", "mistral"]
)
@pytest.mark.parametrize("opens", [True, False])
def test_text_and_ids_equal_transformers(pair: tuple[Tokenizer, Any], template: str, opens: bool) -> None:
    ours, theirs = pair
    cases: list[tuple[list[dict[str, Any]], Any]] = [(CHAT, None), (CHAT[1:], TOOLS)]
    if template is LLAMA3:
        cases.append((PARTS, TOOLS))
    for messages, tools in cases:
        options = {"chat_template": template, "tools": tools, "add_generation_prompt": opens}
        text = rendered(ours, messages, **options, template_kwargs={"extra": "more"})
        assert text == theirs.apply_chat_template(messages, tokenize=False, extra="more", **options)
        ids = ours.encode_chat(messages, **options, template_kwargs={"extra": "more"})
        assert ids == theirs.apply_chat_template(messages, extra="more", **options)["input_ids"]


@pytest.mark.parametrize("template", [CHATML, LLAMA2, LLAMA3])
@pytest.mark.parametrize("ending", ["Sure, ", "Sure,", " x\n"])
def test_continuing_equals_transformers(pair: tuple[Tokenizer, Any], template: str, ending: str) -> None:
    ours, theirs = pair
    messages = [CHAT[1], {"role": "assistant", "content": ending}]
    options = {"chat_template": template, "add_generation_prompt": False, "continue_final_message": True}
    assert rendered(ours, messages, **options) == theirs.apply_chat_template(
        messages, tokenize=False, **options
    )


def test_continuing_parts_and_what_cannot_be_continued() -> None:
    tokenizer = as_tokenizer(byte_level_backend(), LLAMA3)
    end = {"add_generation_prompt": False, "continue_final_message": True}
    assert rendered(tokenizer, PARTS, **end).endswith("ab")
    with pytest.raises(RequestError, match="exclude each other"):
        rendered(tokenizer, CHAT, continue_final_message=True)
    with pytest.raises(RequestError, match="needs text in the last message"):
        rendered(tokenizer, [{"role": "assistant"}], **end)
    with pytest.raises(RequestError, match="drops or changes"):
        rendered(tokenizer, CHAT, chat_template="{{ messages[0].content }}", **end)


def test_reasoning_goes_by_several_names() -> None:
    tokenizer = as_tokenizer(
        byte_level_backend(), "{{ messages[0].reasoning_content }}/{{ messages[0].thinking }}"
    )
    assert rendered(tokenizer, [{"role": "assistant", "reasoning": "r"}]) == "r/r"


def test_a_model_without_template_says_what_to_do() -> None:
    with pytest.raises(RequestError, match=r"no chat template.*--chat-template") as caught:
        rendered(as_tokenizer(byte_level_backend()), CHAT)
    assert caught.value.param == "messages"


def test_a_template_may_refuse() -> None:
    with pytest.raises(RequestError, match="Roles must alternate") as caught:
        rendered(as_tokenizer(byte_level_backend(), LLAMA2), [{"role": "assistant", "content": "x"}])
    assert caught.value.code is ErrorCode.TEMPLATE_FAILED


@pytest.mark.parametrize(
    "name",
    ["messages", "tools", "add_generation_prompt", "bos_token", "tokenize", "chat_template", "_x", "range"],
)
def test_template_arguments_cannot_touch_ours(name: str) -> None:
    with pytest.raises(RequestError, match="belongs to the engine") as caught:
        rendered(as_tokenizer(byte_level_backend(), CHATML), CHAT, template_kwargs={name: 1})
    assert caught.value.param == f"chat_template_kwargs.{name}"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (["x"], "messages[0]"),
        ([{"role": "user", "content": object()}], "messages"),
        ([{"role": "user", "content": {"a": {}}}], None),
    ],
)
def test_messages_are_plain_data(messages: Any, param: str | None) -> None:
    tokenizer = as_tokenizer(byte_level_backend(), "{{ messages | length }}")
    if param is None:
        assert rendered(tokenizer, messages) == "1"
        return
    with pytest.raises(RequestError) as caught:
        rendered(tokenizer, messages)
    assert caught.value.param == param


@pytest.mark.parametrize("name", ["tools", "documents"])
@pytest.mark.parametrize("value", [1, "a", {"a": 1}, [1]])
def test_lists_are_lists(name: str, value: Any) -> None:
    tokenizer = as_tokenizer(byte_level_backend(), "{{ messages | length }}")
    with pytest.raises(RequestError) as caught:
        rendered(tokenizer, [{"role": "user", "content": "a"}], **{name: value})
    assert caught.value.param == name


def test_deep_data_is_refused() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(RequestError, match="levels deep"):
        rendered(as_tokenizer(byte_level_backend(), CHATML), [{"role": "user", "content": deep}])


def doubling(expression: str) -> str:
    start = "{% set ns = namespace(s='xx') %}{% for i in range(60) %}"
    return start + "{% set ns.s = " + expression + " %}{% endfor %}"


HOSTILE = {
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "nested ranges": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "large text": "{{ 'x' * 10**9 }}",
    "large list": "{{ [1] * 10**9 }}",
    "plus": doubling("ns.s + ns.s"),
    "tilde": doubling("ns.s ~ ns.s"),
    "join filter": doubling("[ns.s, ns.s] | join"),
    "join": doubling("''.join([ns.s, ns.s])"),
    "replace": doubling("ns.s.replace('x', ns.s)"),
    "replace filter": doubling("ns.s | replace('x', ns.s)"),
    "format": "{{ '{:1000000000}'.format(1) }}",
    "nested format": "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (1000000000, 1) }}",
    "percent filter": "{{ '%1000000000d' | format(1) }}",
    "center": "{{ 'x'.center(10**9) }}",
    "center filter": "{{ 'x' | center(10**9) }}",
    "power": "{{ 9**9**9 }}",
    "big product": "{% set ns = namespace(n=99999) %}{% for i in range(9999) %}"
    "{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "wide recursion": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "json": "{{ [[1]] | tojson(indent=1000000) }}",
    "captured data": "{% set x %}{% for i in range(9999) %}" + "y" * 90_000 + "{% endfor %}{% endset %}",
    "list as text": "{% set s = 'x' * 900000 %}{% set l = [s, s, s] %}{{ ([l, l, l, l] | string)[:1] }}",
    "nested lists": doubling("[ns.s, ns.s]") + "{{ ns.s }}",
    "list times text": "{{ (['x' * 900000] * 9999) | map('upper') | list | length }}",
    "percent of list": "{% set s = 'x' * 900000 %}{{ '%s' % [s, s, s] }}",
    "format of text": "{% set s = 'x' * 900000 %}{{ '{0}{0}{0}'.format(s) }}",
    "clock": "{{ strftime_now('%099999999d') }}",
    "globals": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals by filter": "{{ (messages|attr('__class__')).mro() }}",
    "namespace": "{% set ns = namespace(__class__=1) %}",
    "include": "{% include 'x' %}",
    "mutation": "{{ messages.append(1) }}",
    "output": "{% for i in range(9999) %}{{ 'x' * 1000 }}{% endfor %}",
    "captured output": "{% set x %}{% for i in range(9999) %}{{ 'x' * 900000 }}{% endfor %}{% endset %}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_templates_are_stopped(source: str) -> None:
    with pytest.raises(RequestError) as caught:
        rendered(as_tokenizer(byte_level_backend(), source), CHAT)
    assert caught.value.code is ErrorCode.TEMPLATE_FAILED


@pytest.mark.parametrize(
    "source",
    [
        "x" * 300_000,
        "{% if 1 %}" * 6000 + "{% endif %}" * 6000,
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "-" * 5000 + "1 }}",
        "{% for i in [1] %}" * 30 + "{% endfor %}" * 30 + "{{ " + "[" * 300 + "]" * 300 + " }}",
        "{% if %}",
        "{{ unknown_filter | nope }}",
    ],
)
def test_bad_sources_are_refused_when_compiled(source: str) -> None:
    with pytest.raises(RequestError) as caught:
        rendered(as_tokenizer(byte_level_backend()), CHAT, chat_template=source)
    assert caught.value.code is ErrorCode.TEMPLATE_FAILED


def test_hostile_templates_of_a_model_are_refused_when_it_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelFileError, match="nested more than"):
        check_templates({"default": "{% if 1 %}" * 6000 + "{% endif %}" * 6000})
    check_templates({"default": CHATML, "odd": "{% if %}"})
    assert "'odd'" in caplog.text


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}",
        "{% if messages | length > 1 %}{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{% endif %}",
        "{{ 'x' * 10**9 }}",
    ],
)
def test_templates_of_a_model_are_tried_when_it_is_loaded(source: str) -> None:
    with pytest.raises(ModelFileError, match="--chat-template"):
        check_templates({"default": source})


def test_a_template_that_refuses_a_chat_is_no_hostile_one() -> None:
    check_templates({"default": "{{ raise_exception('no') }}", "other": "{{ nothing.at.all }}"})


def test_harmless_features_work() -> None:
    source = (
        "{% for x in [1, 2] if x > 1 %}{{ loop.index }}/{{ loop.length }}{% else %}none{% endfor %}"
        "{{ '%s-%d' % ('a', 3) }}{{ '{} {x:>3}'.format(1, x=2) }}{{ dict(a=1).items() | list }}"
        "{{ 'a-b'.split('-') | join(',') }}{{ ['a', 'b'] | map('upper') | join }}"
        "{{ ' x ' | trim | replace('x', 'y') }}{{ messages | map(attribute='role') | join(' ') }}"
        "{{ 'a\nb' | indent(2) }}{{ 'ab'[::-1] }}{{ undefined_name }}"
        "{{ strftime_now('%Y') | length }}{{ [3, 1] | sort | first }}{% call(x) m() %}{{ x }}{% endcall %}"
    )
    macro = "{% macro m() %}<{{ caller('c') }}>{% endmacro %}"
    text = rendered(as_tokenizer(byte_level_backend(), macro + source), [{"role": "user", "content": ""}])
    assert text == "1/1a-31   2[('a', 1)]a,bAByusera\n  bba41<c>"


def test_long_chats_have_room() -> None:
    content = "word " * 500_000
    text = rendered(as_tokenizer(byte_level_backend(), CHATML), [{"role": "user", "content": content}])
    assert content in text


def test_templates_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("T")
    assert read_template(str(path)) == "T"
    assert read_template("{{ x }}") == "{{ x }}"
    with pytest.raises(ConfigError, match="neither a Jinja template nor a file"):
        read_template("no-such-file.jinja")


def test_options_are_not_changed() -> None:
    messages = [{"role": "user", "content": "<|im_end|>", "name": None}]
    options = ChatOptions(messages=messages)
    as_tokenizer(byte_level_backend(), CHATML).prepare_chat(options)
    assert messages == [{"role": "user", "content": "<|im_end|>", "name": None}]


CALLS: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "{% for m in messages %}{% if '</think>' in m.content %}{% endif %}"
            "{{ m.content + ';' }}{% endfor %}",
            "Hi;;",
        ),
        ("{% for m in messages %}{{ m.content.split('</think>')[-1] }};{% endfor %}", "Hi;;"),
        (
            "{% for message in messages %}{% if message['content'] is none %}call{% else %}"
            "{{ message['content'] + ';' }}{% endif %}{% endfor %}",
            "Hi;call",
        ),
        (
            "{% for message in messages %}{% if message.content is not none %}"
            "{{ message.content }};{% endif %}"
            "{{ message.tool_calls | length }}{% endfor %}",
            "Hi;01",
        ),
        (
            "{% for message in messages %}{% if message['content'] is none or message['content'] == '' %}call"
            "{% endif %}{{ message['content'] | length }}{% endfor %}",
            "2call0",
        ),
    ],
)
def test_calls_without_content(pair: tuple[Tokenizer, Any], source: str, text: str) -> None:
    """As null, or as nothing where the template would stumble over null."""
    for said in (CALLS, [CALLS[0], {key: value for key, value in CALLS[1].items() if key != "content"}]):
        assert rendered(pair[0], said, chat_template=source, add_generation_prompt=False) == text


def test_time_that_others_take_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine long chats are rendered later, not refused."""
    monkeypatch.setattr("octavo.tokens.template_budget.MAX_SECONDS", 0.05)
    budget = Budget(1000)
    time.sleep(0.1)
    for _ in range(100):
        budget.tick()
    with pytest.raises(TemplateLimitError, match="longer than"):
        for _ in range(100_000):
            sum(range(100))
            budget.tick()
