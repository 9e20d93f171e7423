"""Arguments between tags: Qwen3-Coder, GLM, MiniMax, Seed-OSS, DeepSeek 3.2."""

from octavo.server.parsing.bodies.tagged import Tagged
from octavo.server.parsing.formats.contract import Shape, ToolFormat

QWEN3_CODER = ToolFormat(
    name="qwen3-coder",
    models="Qwen3-Coder, Qwen 3.5, Nemotron 3, Step 3.5",
    signs=(("<tool_call>", "<function=", "<parameter="),),
    opens=("<tool_call>", "<function="),
    body=Tagged(
        sections=("<tool_call>",),
        begin="<function=",
        key_begin="<parameter=",
        value_end="</parameter>",
        end=("</function>",),
        has_lines=True,
    ),
    closes=("</tool_call>",),
    shape=Shape(
        call=("<tool_call>\n<function=NAME>\n", "</function>\n</tool_call>"),
        between="\n",
        arguments="tags",
        argument=("<parameter=KEY>\n", "\n</parameter>\n"),
    ),
)

SEED_OSS = ToolFormat(
    name="seed-oss",
    models="Seed-OSS",
    signs=(("<seed:tool_call>",),),
    opens=("<seed:tool_call>",),
    body=Tagged(
        sections=("<seed:tool_call>",),
        begin="<function=",
        key_begin="<parameter=",
        value_end="</parameter>",
        end=("</function>",),
    ),
    closes=("</seed:tool_call>",),
    shape=Shape(
        call=("<seed:tool_call>\n<function=NAME>\n", "</function>\n</seed:tool_call>"),
        between="\n",
        arguments="tags",
        argument=("<parameter=KEY>", "</parameter>\n"),
    ),
)

GLM = ToolFormat(
    name="glm",
    models="GLM 4.5, 4.6 and 4.7",
    signs=(("<tool_call>", "<arg_key>", "<arg_value>"),),
    opens=("<tool_call>",),
    body=Tagged(
        name_ends=("\n",),
        key_begin="<arg_key>",
        key_end="</arg_key>",
        value_begin="<arg_value>",
        value_end="</arg_value>",
        end=("</tool_call>",),
    ),
    shape=Shape(
        call=("<tool_call>NAME\n", "</tool_call>"),
        between="\n",
        arguments="tags",
        argument=("<arg_key>KEY</arg_key>\n<arg_value>", "</arg_value>\n"),
    ),
)

MINIMAX = ToolFormat(
    name="minimax",
    models="MiniMax M2",
    signs=(("<minimax:tool_call>",), ("minimax:tool_call", "<invoke name=")),
    opens=("<minimax:tool_call>", "<invoke name="),
    body=Tagged(
        sections=("<minimax:tool_call>",),
        begin="<invoke name=",
        key_begin="<parameter name=",
        value_end="</parameter>",
        end=("</invoke>",),
    ),
    closes=("</minimax:tool_call>",),
    shape=Shape(
        begin="<minimax:tool_call>\n",
        call=('<invoke name="NAME">\n', "</invoke>\n"),
        between="",
        end="</minimax:tool_call>",
        arguments="tags",
        argument=('<parameter name="KEY">', "</parameter>\n"),
    ),
)

DEEPSEEK_V32 = ToolFormat(
    name="deepseek-v3.2",
    models="DeepSeek V3.2",
    signs=(("<｜DSML｜",), ("｜DSML｜",)),
    opens=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>", "<｜DSML｜invoke name="),
    body=Tagged(
        sections=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
        begin="<｜DSML｜invoke name=",
        key_begin="<｜DSML｜parameter name=",
        value_end="</｜DSML｜parameter>",
        end=("</｜DSML｜invoke>",),
    ),
    closes=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
    shape=Shape(
        begin="<｜DSML｜function_calls>\n",
        call=('<｜DSML｜invoke name="NAME">\n', "</｜DSML｜invoke>\n"),
        between="",
        end="</｜DSML｜function_calls>",
        arguments="tags",
        argument=('<｜DSML｜parameter name="KEY" string="IS_TEXT">', "</｜DSML｜parameter>\n"),
    ),
)

FORMATS = (QWEN3_CODER, SEED_OSS, GLM, MINIMAX, DEEPSEEK_V32)
