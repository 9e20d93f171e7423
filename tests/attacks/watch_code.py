"""A process that uses a model and reports every attempt to open, compile or import code in its folder.

    python -m tests.attacks.watch_code MODEL

One JSON line: what the audit hook saw, and how it ended.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SEEN: list[str] = []


def watch(folder: str) -> None:
    """From now on nothing escapes: audit hooks cannot be taken away."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "compile", "exec", "import") and any(
            _concerns(one, folder) for one in arguments
        ):
            SEEN.append(f"{event} {arguments[0]!r}"[:300])

    sys.addaudithook(hook)


def _concerns(argument: object, folder: str) -> bool:
    name = getattr(argument, "co_filename", argument)
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    if not isinstance(name, str | Path):
        return False
    text = str(name)
    return (text.startswith(folder) and text.endswith((".py", ".pyc"))) or text.split(".")[-1] == "evil"


def main() -> None:
    model = sys.argv[1]
    watch(model)
    from octavo import LLM, OctavoError, SamplingParams

    try:
        llm = LLM(model, max_model_len=64, num_blocks=16)
        llm.generate(["hello"], SamplingParams(max_tokens=2, temperature=0.0), use_tqdm=False)
        how = "answered"
    except OctavoError as error:
        how = f"{type(error).__name__}: {error.message}"
    result = {"seen": SEEN, "how": how, "ran": (Path(model) / "ran").exists()}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
