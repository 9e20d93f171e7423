"""Messages reach the template in the form that it can write."""

from __future__ import annotations

import pytest

from octavo.server.openai.schema.chat import ChatMessage
from octavo.server.render.history import fitted_history
from octavo.server.render.messages import template_messages

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def shown(template: str, function: dict[str, object] | None = None) -> object:
    call = CALL if function is None else {**CALL, "function": function}
    messages = template_messages([ChatMessage(role="assistant", content=None, tool_calls=[call])], template)
    return fitted_history(messages, None, template)[0]["tool_calls"][0]["function"]["arguments"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ '\n' + tool['function']['arguments'] + '\n```' }}",
        "{{ '>>>' + call.function.arguments }}",
        "{{ (x + tool_call['function']['arguments']) | trim }}",
    ],
)
def test_a_template_that_joins_arguments_gets_text(template: str) -> None:
    assert shown(template) == '{"a": 1}'


@pytest.mark.parametrize(
    "template",
    [
        "{{ call.arguments | tojson }}",
        "{{ '\n' + tool['function']['arguments'] | tojson + '\n```' }}",
        "{% set arguments = tool.arguments|items %}{{ '[' + arguments + ']' }}",
        "{% if call.arguments is string %}{{ call.arguments }}{% endif %}",
        "",
    ],
)
def test_other_templates_get_an_object(template: str) -> None:
    assert shown(template) == {"a": 1}


@pytest.mark.parametrize("arguments", ["", None])
def test_no_arguments_are_an_empty_object(arguments: str | None) -> None:
    assert shown("{{ call.arguments | tojson }}", {"name": "f", "arguments": arguments}) == {}
    assert shown("{{ call.arguments | tojson }}", {"name": "f"}) == {}


@pytest.mark.parametrize(
    ("template", "role"),
    [
        ("{% if message.role == 'developer' %}", "developer"),
        ('{% if message["role"] in ["system", "developer"] %}', "developer"),
        ("Follow the developer preamble. {% if developer_preamble %}", "system"),
        ("{{ message.role }}", "system"),
    ],
)
def test_a_developer_is_the_system_where_no_role_is_called_so(template: str, role: str) -> None:
    (message,) = template_messages([ChatMessage(role="developer", content="Be kind.")], template)
    assert message["role"] == role
