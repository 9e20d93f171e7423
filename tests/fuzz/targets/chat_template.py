"""Text of chat templates, which comes from model files and, where allowed, from requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from octavo.base.errors import RequestError
from octavo.tokens.chat_template import ChatOptions, checked, render
from octavo.tokens.template_budget import MAX_SECONDS
from tests.fuzz.mutate import text_mutator
from tests.fuzz.target import Run, Target
from tests.tokens.small_tokenizers import CHATML

MESSAGES = [
    {"role": "system", "content": "You are kind."},
    {"role": "user", "content": [{"type": "text", "text": "What's the weather? 😀"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": [1, 2.5, None]}}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "sunny"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]

WORDS = (
    "{{ ", " }}", "{% ", " %}", "{%- ", "-%}", "{# ", " #}", "{% for m in messages %}", "{% endfor %}",
    "{% if tools %}", "{% else %}", "{% endif %}", "{% set x = ", "{% set ns = namespace(a=1) %}",
    "{% macro f(a) %}",
    "{% endmacro %}", "{{ f(1) }}", "{% call f() %}", "{% endcall %}", "{% filter upper %}",
    "{% endfilter %}",
    "{% break %}", "{% continue %}", "{% generation %}", "{% endgeneration %}", "{% raw %}", "{% endraw %}",
    "messages[0]['role']", "m.content", "m['content']", ".tool_calls", "loop.index0", "loop.previtem", "self",
    "caller",
    "range(9999)", "'x' * 10**9", "[[]] * 1000", "'%9999d' % 1", "'{:>99999}'.format(1)", "~",
    " | tojson(indent=4)",
    " | join(', ')", " | replace('a', 'aa')", " | map(attribute='role')",
    " | selectattr('role', 'equalto', 'user')",
    " | list", " | length", " | trim", " | items", " | dictsort", " | groupby('role')", " | sum(start=[])",
    " | sort",
    " | unique", " | format(1)", " | indent(4)", " | int(base=1000)", " | round(400)", " | float",
    " | batch(2)",
    ".__class__", ".__mro__[1].__subclasses__()", "['__globals__']", ".format_map", "|attr('__init__')",
    ".append(1)", ".items()", ".split(',')", ".strip()", ".startswith('a')", ".replace('a','b' * 999)",
    ".encode()",
    " is defined", " is mapping", " is string", " in ", " not ", " and ", " or ", " if ", " else ", "1e308",
    "10**15",
    "strftime_now('%Y')", "raise_exception('x')", "namespace(__init__=1)", "dict(a=1)", "bos_token", "true",
    "none",
    "<|im_start|>", "\n",
)  # fmt: skip


def opened(folder: Path) -> Run:
    options = [
        checked(ChatOptions(messages=MESSAGES, tools=TOOLS, template_kwargs={"flag": True})),
        checked(
            ChatOptions(messages=MESSAGES[:2], continue_final_message=True, add_generation_prompt=False),
        ),
    ]

    def run(data: bytes) -> None:
        source = data.decode("utf-8", "replace")
        for chat in options:
            try:
                assert isinstance(render(source, chat, {"bos_token": "<s>"}, None), str)
            except RequestError:
                continue

    return run


SEEDS = (
    CHATML,
    "{% macro f(a) %}{{ a }}{% endmacro %}{% for m in messages %}{{ f(m.role) }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% if tools %}{{ tools | tojson(indent=4) }}{% endif %}{{ messages | map(attribute='role') | join }}",
    "{{ messages[0].content | replace('a', 'b') | trim | upper }}{{ '%s' % 1 }}{{ '{}'.format(2) }}",
    "{% for k, v in messages[0] | items %}{{ k ~ v }}{% endfor %}{% for m in messages[::-1] %}x{% endfor %}",
)


def seeds() -> Iterator[bytes]:
    yield from (seed.encode() for seed in SEEDS)


TARGET = Target(
    open=opened,
    seeds=seeds,
    mutate=text_mutator(WORDS),
    max_bytes=2048,
    # Two renderings, each with all the time that it may have.
    input_s=2 * MAX_SECONDS + 3,
    memory_bytes=512 * 2**20,
)
