"""Formats are found in chat templates, with a reason."""

from __future__ import annotations

import pytest

from octavo.base.errors import ConfigError
from octavo.server.parsing.detect import detect
from octavo.server.parsing.formats.table import ALIASES, TOOL_FORMATS
from octavo.server.parsing.reasoning import REASONING_FORMATS

TEMPLATES: dict[str, tuple[str | None, str | None]] = {
    # What each template says of how to answer -> format of calls, format of reasoning.
    '{% for tool in tools %}...<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": '
    "<args-json-object>}\\n</tool_call>": ("hermes", None),
    "{% if tools %}<tool_call>{'name', 'arguments'}</tool_call>{% endif %}{{ '<think>\\n</think>\\n\\n' }}": (
        "hermes",
        "think",
    ),
    "{% if tools %}<tool_call>\n<function=e>\n<parameter=p>\n</parameter></tool_call>{% endif %}<think>": (
        "qwen3-coder",
        "think",
    ),
    "{% if tools %}<tool_call>{function-name}\n<arg_key>{k}</arg_key>\n<arg_value>{v}</arg_value></tool_call>"
    "{% endif %}</think>": ("glm", "think"),
    '{% if tools is not none %}<|start_header_id|>... {\\"name\\": function name, \\"parameters\\": x}'
    "<|python_tag|>": ("llama3", None),
    "{{ custom_tools }}<|header_start|><|python_start|>": ("llama4", None),
    "{% if tools %}[func_name1(params_name1=params_value1), func_name2(params)]{% endif %}": (
        "pythonic",
        None,
    ),
    "[AVAILABLE_TOOLS]{{ tools }}[TOOL_CALLS][": ("mistral-v3", None),
    "[AVAILABLE_TOOLS]{{ tools }}[TOOL_CALLS]f[ARGS][THINK]": ("mistral", "magistral"),
    "{{ tools }}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json</think>": (
        "deepseek-v3",
        "think",
    ),
    "{{ tools }}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}</think>": (
        "deepseek-v3.1",
        "think",
    ),
    "{{ tools }}<｜DSML｜function_calls></think>": ("deepseek-v3.2", "think"),
    "{{ tools }}<|tool_calls_section_begin|>": ("kimi", None),
    '{{ tools }}<minimax:tool_call><invoke name="f"></think>': ("minimax", "think"),
    '{{ tools }}<minimax:tool_call><invoke name="f"><response></response><think></think>': (
        "minimax",
        "think",
    ),
    "{% if tools %}List of tools: [{% endif %}<|im_start|>": ("lfm2", None),
    "{{ tools }}<seed:tool_call><function=f><parameter=p><seed:think>": ("seed-oss", "seed-oss"),
    "{{ tools }}Granite<|start_of_role|><|tool_call|>Here is my thought process: Here is my response:": (
        "granite",
        "granite",
    ),
    "{{ tools }}You are Granite<|start_of_role|><|tool_call|><think></think><response></response>": (
        "granite",
        "granite-think",
    ),
    "<|system|><|tool|>{{ message['tools'] }}<|/tool|>": ("phi4", None),
    "{{ tools }}<start_function_declaration><start_function_call>call:": ("functiongemma", None),
    "{{ tools }}<|tool_call>call:f{}<tool_call|><|channel>thought<channel|>": ("gemma4", "gemma4"),
    "{{ tools }}<|start|>assistant<|channel|>final<|message|>": ("gpt-oss", "gpt-oss"),
    '{{ tools }}<|START_ACTION|>{"tool_name"}<|START_THINKING|>': ("cohere", "cohere"),
    "{{ tools }}<|action_start|><|plugin|>": ("internlm", None),
    "{{ functions }}<function_calls></function_calls>": ("olmo3", None),
    "{{ tools }}<|tool_list_start|><|tool_call_start|>": ("lfm2", None),
    "{% for message in messages %}{{ message.content }}{% endfor %}": (None, None),
    "{# tools: <tool_call> <think> #}{{ messages }}": (None, None),
    "<think>{{ messages }}": (None, "think"),
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_found_in_templates(template: str) -> None:
    found = detect(template)
    names = (
        None if found.tools is None else found.tools.name,
        None if found.reasoning is None else found.reasoning.name,
    )
    assert names == TEMPLATES[template]
    assert found.tools_reason and found.reasoning_reason
    assert found.shows_tools == (names[0] is not None)


def test_tools_without_signs() -> None:
    found = detect("{{ tools }}")
    assert found.tools is TOOL_FORMATS["hermes"] and "most common" in found.tools_reason
    assert found.takes_regions


def test_no_template() -> None:
    found = detect(None)
    assert (found.tools, found.reasoning, found.shows_tools) == (None, None, False)


def test_named_formats_win() -> None:
    found = detect("{{ tools }}<tool_call></tool_call>arguments<think>", "pythonic", "none")
    assert found.tools is TOOL_FORMATS["pythonic"] and "tool_call_parser" in found.tools_reason
    assert found.reasoning is None and not found.takes_regions
    for alias, name in ALIASES.items():
        assert detect("{{ tools }}", alias).tools is TOOL_FORMATS[name]
    assert detect("", "auto", "deepseek_r1").reasoning is REASONING_FORMATS["deepseek-r1"]


def test_unknown_names_list_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match=r"tool_call_parser 'x'.*auto, none, cohere.*hermes"):
        detect("", "x")
    with pytest.raises(ConfigError, match=r"reasoning_parser 'x'.*auto, none, cohere.*think"):
        detect("", "auto", "x")
