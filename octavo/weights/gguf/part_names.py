"""Which .gguf files are a model: one alone, or the parts of one that was split, told by their names.

llama-gguf-split calls parts NAME-00001-of-00003.gguf and so on. Towers for pictures and sound lie beside a
model in a file of their own (mmproj), which is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_PARTS = 1000
_PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.ASCII)


def part_names(name: str) -> list[str]:
    """All parts in order, of the model that this file is one of; the name alone if it is no part."""
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]) <= MAX_PARTS:
        return [name]
    count = int(match["count"])
    return [f"{match['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


def model_names(names: Iterable[str]) -> list[str]:
    """Of these files, one for each model: first parts, and no towers."""
    ggufs = (name for name in names if name.endswith(".gguf"))
    own = {name for name in ggufs if not name.rpartition("/")[2].lower().startswith("mmproj")}
    return sorted({part_names(name)[0] for name in own})


def without_part(name: str) -> str:
    """A file's name without what tells the part, and without its ending."""
    match = _PART.fullmatch(name)
    return name.removesuffix(".gguf") if match is None else match["stem"]
