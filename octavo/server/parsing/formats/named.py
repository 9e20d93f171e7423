"""A name between markers, then JSON: DeepSeek, Kimi, Mistral, Functionary."""

from octavo.server.parsing.bodies.json_calls import JsonCalls
from octavo.server.parsing.bodies.named_json import NamedJson
from octavo.server.parsing.formats.contract import Shape, ToolFormat

_SECTION, _SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _SEPARATOR, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"

DEEPSEEK_V3 = ToolFormat(
    name="deepseek-v3",
    models="DeepSeek V3 and R1",
    signs=((_CALL, "```json"),),
    opens=(_SECTION, _CALL),
    body=NamedJson(
        sections=(_SECTION,),
        begins=(_CALL,),
        name_ends=("```json",),
        name_pattern=r"(?:function\s*)?<｜tool▁sep｜>(?P<name>.+)",
    ),
    closes=("```", _CALL_END, _SECTION_END),
    shape=Shape(
        begin=_SECTION,
        call=(f"{_CALL}function{_SEPARATOR}NAME\n```json\n", f"\n```{_CALL_END}"),
        between="\n",
        end=_SECTION_END,
    ),
)

DEEPSEEK_V31 = ToolFormat(
    name="deepseek-v3.1",
    models="DeepSeek V3.1",
    signs=((_CALL, _SEPARATOR),),
    opens=(_SECTION, _CALL),
    body=NamedJson(sections=(_SECTION,), begins=(_CALL,), name_ends=(_SEPARATOR,)),
    closes=(_CALL_END, _SECTION_END),
    shape=Shape(begin=_SECTION, call=(f"{_CALL}NAME{_SEPARATOR}", _CALL_END), between="", end=_SECTION_END),
)

KIMI = ToolFormat(
    name="kimi",
    models="Kimi K2",
    signs=(("<|tool_calls_section_begin|>",), ("<|tool_call_argument_begin|>",)),
    opens=("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
    body=NamedJson(
        sections=("<|tool_calls_section_begin|>",),
        begins=("<|tool_call_begin|>",),
        name_ends=("<|tool_call_argument_begin|>",),
        name_pattern=r"(?P<id>(?:functions\.)?(?P<name>[^:]+)(?::\d+)?)",
    ),
    closes=("<|tool_call_end|>", "<|tool_calls_section_end|>"),
    # The number behind the name counts calls, so only one can be forced.
    shape=Shape(
        begin="<|tool_calls_section_begin|>",
        call=("<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        end="<|tool_calls_section_end|>",
    ),
)

MISTRAL = ToolFormat(
    name="mistral",
    models="Mistral Small 3.2, Magistral, Devstral and newer",
    signs=(("[TOOL_CALLS]", "[ARGS]"),),
    opens=("[TOOL_CALLS]",),
    body=NamedJson(name_ends=("[ARGS]",), id_begins=("[CALL_ID]",)),
    id_style="short",
    shape=Shape(call=("[TOOL_CALLS]NAME[ARGS]", ""), between=""),
)

MISTRAL_V3 = ToolFormat(
    name="mistral-v3",
    models="Mistral 7B, Mixtral, Nemo, Mistral Small and Large up to 2024",
    signs=(("[TOOL_CALLS]",),),
    opens=("[TOOL_CALLS]",),
    body=JsonCalls(id_keys=("id",)),
    id_style="short",
    shape=Shape(begin="[TOOL_CALLS][", call=('{"name": "NAME", "arguments": ', "}"), between=", ", end="]"),
)

FUNCTION_TAG = ToolFormat(
    name="function-tag",
    models="Functionary, Llama 3.1 with custom tags",
    signs=(("<function=", "</function>"),),
    opens=("<function=",),
    body=NamedJson(name_ends=(">",)),
    closes=("</function>",),
    shape=Shape(call=("<function=NAME>", "</function>"), between="\n"),
)

FORMATS = (DEEPSEEK_V3, DEEPSEEK_V31, KIMI, MISTRAL, MISTRAL_V3, FUNCTION_TAG)
