"""Gemma: code blocks, FunctionGemma's and Gemma 4's calls in braces."""

from octavo.server.parsing.bodies.braces import Braces
from octavo.server.parsing.bodies.pythonic import Pythonic
from octavo.server.parsing.formats.contract import Shape, ToolFormat

GEMMA3 = ToolFormat(
    name="gemma3",
    models="Gemma 3, where the prompt asks for tool_code blocks",
    signs=(("```tool_code",),),
    opens=("```tool_code",),
    body=Pythonic(wrapper="print"),
    closes=("```",),
    shape=Shape(
        begin="```tool_code\n",
        call=("NAME(", ")"),
        between="\n",
        end="\n```",
        arguments="pairs",
        argument=("KEY=", ""),
    ),
)

FUNCTION_GEMMA = ToolFormat(
    name="functiongemma",
    models="FunctionGemma",
    signs=(("<start_function_call>",),),
    opens=("<start_function_call>",),
    body=Braces(quote="<escape>"),
    closes=("<end_function_call>", "<start_function_response>"),
    shape=Shape(
        call=("<start_function_call>call:NAME{", "}<end_function_call>"),
        between="",
        arguments="pairs",
        argument=("KEY:", ""),
        quote="<escape>",
    ),
)

GEMMA4 = ToolFormat(
    name="gemma4",
    models="Gemma 4",
    signs=(("<|tool_call>", "<tool_call|>"), ("<|tool_call>call:",)),
    opens=("<|tool_call>",),
    body=Braces(quote='<|"|>'),
    closes=("<tool_call|>", "<|tool_response>"),
    shape=Shape(
        call=("<|tool_call>call:NAME{", "}<tool_call|>"),
        between="",
        arguments="pairs",
        argument=("KEY:", ""),
        quote='<|"|>',
    ),
)

FORMATS = (GEMMA3, FUNCTION_GEMMA, GEMMA4)
