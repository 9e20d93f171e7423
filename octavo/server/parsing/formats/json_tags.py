"""JSON objects between tags, or behind one."""

from octavo.server.parsing.bodies.json_calls import JsonCalls
from octavo.server.parsing.formats.contract import Shape, ToolFormat

_OBJECT = ('{"name": "NAME", "arguments": ', "}")

HERMES = ToolFormat(
    name="hermes",
    models="Qwen 2.5 and 3, Hermes, Granite 4, SmolLM3 and most others",
    signs=(("<tool_call>", "</tool_call>", '"arguments"'), ("<tool_call>", "</tool_call>", "arguments")),
    opens=("<tool_call>",),
    # Small models leave the tags out.
    starts=("{", "```json"),
    body=JsonCalls(unsure=("{", "```json")),
    closes=("</tool_call>", "}", "```"),
    shape=Shape(
        call=("<tool_call>\n" + _OBJECT[0], _OBJECT[1] + "\n</tool_call>"),
        between="\n",
    ),
)

LONGCAT = ToolFormat(
    name="longcat",
    models="LongCat",
    signs=(("<longcat_tool_call>",),),
    opens=("<longcat_tool_call>",),
    body=JsonCalls(),
    closes=("</longcat_tool_call>",),
    shape=Shape(
        call=("<longcat_tool_call>\n" + _OBJECT[0], _OBJECT[1] + "\n</longcat_tool_call>"), between="\n"
    ),
)

JAMBA = ToolFormat(
    name="jamba",
    models="Jamba, Hunyuan A13B",
    signs=(("<tool_calls>", "</tool_calls>"),),
    opens=("<tool_calls>",),
    body=JsonCalls(),
    closes=("</tool_calls>",),
    shape=Shape(begin="<tool_calls>[", call=_OBJECT, between=", ", end="]</tool_calls>"),
)

GRANITE = ToolFormat(
    name="granite",
    models="Granite 3",
    signs=(("<|tool_call|>", "Granite"), ("<|tool_call|>", "<|start_of_role|>")),
    opens=("<|tool_call|>", "<tool_call>"),
    body=JsonCalls(),
    closes=("</tool_call>",),
    shape=Shape(begin="<|tool_call|>[", call=_OBJECT, between=", ", end="]"),
)

GRANITE_20B = ToolFormat(
    name="granite-20b",
    models="Granite 20B function calling",
    signs=(("<function_call>",),),
    opens=("<function_call>",),
    body=JsonCalls(),
    closes=("</function_call>",),
    shape=Shape(call=("<function_call> " + _OBJECT[0], _OBJECT[1]), between="\n"),
)

PHI4 = ToolFormat(
    name="phi4",
    models="Phi-4 mini",
    signs=(("<|tool|>", "<|/tool|>"), ("functools",)),
    opens=("functools", "<|tool_call|>"),
    body=JsonCalls(),
    closes=("<|/tool_call|>",),
    shape=Shape(begin="<|tool_call|>[", call=_OBJECT, between=", ", end="]<|/tool_call|>"),
)

INTERNLM = ToolFormat(
    name="internlm",
    models="InternLM 2 and 3",
    signs=(("<|action_start|>", "<|plugin|>"),),
    opens=("<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"),
    body=JsonCalls(),
    closes=("<|action_end|>",),
    shape=Shape(
        call=('<|action_start|><|plugin|>{"name": "NAME", "parameters": ', "}<|action_end|>"), between="\n"
    ),
)

COHERE = ToolFormat(
    name="cohere",
    models="Command R7B, Command A",
    signs=(("<|START_ACTION|>", "tool_name"),),
    opens=("<|START_ACTION|>",),
    body=JsonCalls(name_keys=("tool_name", "name"), id_keys=("tool_call_id",)),
    closes=("<|END_ACTION|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    shape=Shape(
        begin="<|START_ACTION|>[",
        call=('{"tool_name": "NAME", "parameters": ', "}"),
        between=", ",
        end="]<|END_ACTION|>",
    ),
)

JSON = ToolFormat(
    name="json",
    models="any model: used where calls are forced and the model has no format of its own",
    signs=(),
    starts=("{",),
    body=JsonCalls(unsure=("{",)),
    shape=Shape(call=_OBJECT, between="\n"),
)

FORMATS = (JSON, HERMES, LONGCAT, JAMBA, GRANITE, GRANITE_20B, PHI4, INTERNLM, COHERE)
