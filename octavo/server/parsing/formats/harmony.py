"""gpt-oss: calls are messages to functions.NAME; their headers are read by the machine itself."""

from octavo.server.parsing import channels
from octavo.server.parsing.bodies.named_json import NamedJson
from octavo.server.parsing.formats.contract import Shape, ToolFormat

HARMONY = ToolFormat(
    name="gpt-oss",
    models="gpt-oss",
    signs=(("<|channel|>", "<|message|>"),),
    body=NamedJson(name_ends=(channels.MESSAGE,)),
    closes=channels.ENDS,
    shape=Shape(
        call=("<|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>", ""),
        thought=(channels.ANALYSIS, "<|end|>"),
    ),
)

FORMATS = (HARMONY,)
