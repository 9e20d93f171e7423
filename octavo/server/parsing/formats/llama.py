"""Llama: JSON or Python calls that are the whole answer, mostly without a marker."""

from octavo.server.parsing.bodies.json_calls import JsonCalls
from octavo.server.parsing.bodies.pythonic import Pythonic
from octavo.server.parsing.formats.contract import Shape, ToolFormat

LLAMA3 = ToolFormat(
    name="llama3",
    models="Llama 3.1, 3.2 and 3.3",
    signs=(("<|python_tag|>", '"parameters"'), ("<|start_header_id|>", '"parameters"')),
    opens=("<|python_tag|>",),
    starts=("{",),
    # Small models write {"type": "function", "function": NAME, "parameters": ...}.
    body=JsonCalls(name_keys=("name", "function"), unsure=("{",), separators=(",", ";")),
    closes=(";", "<|eom_id|>"),
    shape=Shape(call=('{"name": "NAME", "parameters": ', "}"), between="; "),
)

LLAMA4 = ToolFormat(
    name="llama4",
    models="Llama 4",
    signs=(("<|python_start|>",), ("<|header_start|>", "[func_name1(")),
    opens=("<|python_start|>",),
    starts=("[",),
    body=Pythonic(only_known=True),
    closes=("<|python_end|>",),
    shape=Shape(
        begin="[", call=("NAME(", ")"), between=", ", end="]", arguments="pairs", argument=("KEY=", "")
    ),
)

PYTHONIC = ToolFormat(
    name="pythonic",
    models="Llama 3.2 small, ToolACE and others that answer with a list of calls",
    signs=(("[func_name1(",), ("[func_name(",)),
    starts=("[",),
    body=Pythonic(only_known=True),
    shape=Shape(
        begin="[", call=("NAME(", ")"), between=", ", end="]", arguments="pairs", argument=("KEY=", "")
    ),
)

OLMO3 = ToolFormat(
    name="olmo3",
    models="OLMo 3",
    signs=(("<function_calls>", "</function_calls>"),),
    opens=("<function_calls>",),
    body=Pythonic(),
    closes=("</function_calls>",),
    shape=Shape(
        begin="<function_calls>",
        call=("NAME(", ")"),
        between="\n",
        end="</function_calls>",
        arguments="pairs",
        argument=("KEY=", ""),
    ),
)

LFM2 = ToolFormat(
    name="lfm2",
    models="LFM 2",
    signs=(("<|tool_call_start|>",), ("<|tool_list_start|>",), ("List of tools: [",)),
    opens=("<|tool_call_start|>",),
    body=Pythonic(),
    closes=("<|tool_call_end|>",),
    shape=Shape(
        begin="<|tool_call_start|>[",
        call=("NAME(", ")"),
        between=", ",
        end="]<|tool_call_end|>",
        arguments="pairs",
        argument=("KEY=", ""),
    ),
)

FORMATS = (LLAMA4, LFM2, OLMO3, LLAMA3, PYTHONIC)
