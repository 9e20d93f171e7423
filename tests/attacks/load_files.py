"""A process that opens models as a server does before it loads weights, and says what came of each.

    python -m tests.attacks.load_files load PATH...
    python -m tests.attacks.load_files damage FILE STRIDE

`load`: one JSON line for each path. `damage`: every STRIDE-th cut of a file and flip of a byte of its header.
Whoever reads beyond a map dies here, which the parent sees.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from octavo.base.errors import OctavoError
from octavo.config.root import EngineConfig
from octavo.engine.load import load_front
from octavo.weights.gguf.reader import GGUFFile
from octavo.weights.safetensors import SafetensorsFile


def load(path: str) -> dict[str, Any]:
    """What came of one model: the error, if any, and what it cost."""
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    before, began = _memory_bytes("VmRSS"), time.monotonic()
    result: dict[str, Any] = {"path": path, "error": None, "message": ""}
    try:
        load_front(EngineConfig.from_options({"model": path}))
    except OctavoError as error:
        result |= {"error": type(error).__name__, "message": error.message}
    except Exception as error:
        result |= {"error": type(error).__name__, "message": str(error), "is_crash": True}
    return result | {"seconds": time.monotonic() - began, "grown_bytes": _memory_bytes("VmHWM") - before}


def damage(path: Path, stride: int) -> dict[str, int]:
    """How many damaged forms were refused, how many stood for the same tensors, how many for less."""
    whole = path.read_bytes()
    tensors, header = _tensors(path)
    counts = {"refused": 0, "equal": 0, "tensors_missing": 0, "different": 0}
    target = path.with_name("damaged")
    for content in _damaged(whole, header, stride):
        target.write_bytes(content)
        try:
            found, _ = _tensors(target)
        except OctavoError:
            counts["refused"] += 1
            continue
        if found == tensors:
            counts["equal"] += 1
        elif tensors.keys() - found.keys():
            counts["tensors_missing"] += 1  # Refused by name when the weights are placed.
        else:
            counts["different"] += 1
    return counts


def _damaged(whole: bytes, header: int, stride: int) -> Iterator[bytes]:
    for length in range(0, len(whole), stride):
        yield whole[:length]
    for flip in (0x01, 0x80, 0xFF):
        for position in range(flip % stride, header, stride):
            yield whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :]


def _tensors(path: Path) -> tuple[dict[str, tuple[Any, ...]], int]:
    """By name: type, shape and a digest of all bytes. And where the header ends."""
    file: GGUFFile | SafetensorsFile
    with path.open("rb") as opened:
        is_gguf = opened.read(4) == b"GGUF"
    file = GGUFFile(path) if is_gguf else SafetensorsFile(path)
    data = path.read_bytes()
    found = {}
    for name, tensor in file.tensors.items():
        content = data[tensor.start : tensor.start + tensor.num_bytes]
        assert len(content) == tensor.num_bytes, "a tensor lies inside its file"
        kind = getattr(tensor, "dtype", None) or tensor.kind.name  # type: ignore[union-attr]
        found[name] = kind, tensor.shape, hashlib.sha256(content).hexdigest()
    return found, min(tensor.start for tensor in file.tensors.values())


def _memory_bytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def main() -> None:
    mode, *arguments = sys.argv[1:]
    if mode == "damage":
        say(damage(Path(arguments[0]), int(arguments[1])))
        return
    for path in arguments:
        say(load(path))


def say(result: dict[str, Any] | dict[str, int]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
