"""How fast weights reach the device: plain threaded reads of a checkpoint's files, then a whole load.

Writes a sharded checkpoint of random bfloat16 numbers into a temporary folder (or `--folder`, which is kept
and used again). No cache is dropped: what was just written is read from memory unless it is larger than
that; read an older folder for the speed of the disk.

python benchmarks/load_weights.py --gigabytes 16 --device cuda --out results.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from octavo.base.files import open_regular, read_exactly
from octavo.cli.machine import machine_facts
from octavo.weights.checkpoint import open_checkpoint
from octavo.weights.transfer import BUFFER_BYTES, MAX_LANES

HIDDEN, MLP, HEADS, KV_HEADS, VOCAB = 4096, 14336, 32, 8, 32000
"""The layers of an 8 B model; as many of them as the size asks for."""
LAYERS_PER_SHARD = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--dtype", default="bfloat16", help="type on the device; another one is converted there"
    )
    parser.add_argument("--folder", type=Path, help="keep the checkpoint here, or use the one that is")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = arguments.folder or Path(temporary)
        if not (folder / "config.json").exists():
            write_checkpoint(folder, arguments.gigabytes)
        device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
        rows = []
        for number in range(arguments.rounds):
            measures: dict[str, Callable[[], tuple[int, float]]] = {
                "read": lambda: read_files(folder),
                "load": lambda: load(folder, "auto", device, dtype),
            }
            if device.type == "cuda":
                measures["make dummy"] = lambda: load(folder, "dummy", device, dtype)
            for what, measure in measures.items():
                num_bytes, seconds = measure()
                rows.append({"what": what, "round": number, "gigabytes": num_bytes / 1e9, "seconds": seconds})
                speed = num_bytes / 1e9 / seconds
                print(
                    f"{what:<11} {num_bytes / 1e9:7.2f} GB  {seconds:7.2f} s  {speed:7.2f} GB/s", flush=True
                )
    result = {
        "device": device_name(device),
        "dtype": arguments.dtype,
        "rows": rows,
        "machine": machine_facts(),
    }
    print(json.dumps(summary(rows)))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def write_checkpoint(folder: Path, gigabytes: float) -> None:
    """A Llama of so many layers that its files have about this size."""
    layer_bytes = 2 * HIDDEN * (2 * HIDDEN + 2 * HIDDEN * KV_HEADS // HEADS + 3 * MLP)
    num_layers = max(1, round((gigabytes * 1e9 - 4 * VOCAB * HIDDEN) / layer_bytes))
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": num_layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 4096,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = open_checkpoint(folder, "dummy")
    weight_map: dict[str, str] = {}
    names = shapes.tensor_names()
    for shard, start in enumerate(range(0, len(names), 9 * LAYERS_PER_SHARD)):
        chosen = names[start : start + 9 * LAYERS_PER_SHARD]
        file = f"model-{shard:05}.safetensors"
        save_file({name: random_weights(shapes.shape(name)) for name in chosen}, folder / file)
        weight_map.update(dict.fromkeys(chosen, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def random_weights(shape: tuple[int, ...]) -> torch.Tensor:
    """Random bits with exponents that keep every number finite: much faster than normal numbers."""
    bits = torch.randint(-(2**15), 2**15, shape, dtype=torch.int16)
    return (bits & -0x4001).view(torch.bfloat16)


def read_files(folder: Path) -> tuple[int, float]:
    """All files, as many threads and as large pieces as the engine's, into memory that is thrown away."""
    paths = sorted(folder.glob("*.safetensors"))
    sizes = {path: path.stat().st_size for path in paths}
    pieces = [(path, start) for path in paths for start in range(0, sizes[path], BUFFER_BYTES)]
    descriptors = {path: open_regular(path) for path in paths}
    num_threads = min(MAX_LANES, len(os.sched_getaffinity(0)))
    buffers = [memoryview(bytearray(BUFFER_BYTES)) for _ in range(num_threads)]

    def read(lane: int) -> None:
        for path, start in pieces[lane::num_threads]:
            room = buffers[lane][: min(BUFFER_BYTES, sizes[path] - start)]
            read_exactly(descriptors[path], room, start, path.name)

    began = time.monotonic()
    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(read, range(num_threads)))
    seconds = time.monotonic() - began
    for descriptor in descriptors.values():
        os.close(descriptor)
    return sum(sizes.values()), seconds


def load(folder: Path, load_format: str, device: torch.device, dtype: torch.dtype) -> tuple[int, float]:
    """Through `Checkpoint.upload` into row-major targets that are there before the clock starts."""
    checkpoint = open_checkpoint(folder, load_format)
    targets = [
        (name, torch.zeros(checkpoint.shape(name), dtype=dtype, device=device))
        for name in checkpoint.tensor_names()
    ]
    synchronize(device)
    began = time.monotonic()
    checkpoint.upload(targets)
    synchronize(device)
    seconds = time.monotonic() - began
    if load_format == "auto":
        name, target = targets[-1]
        assert torch.equal(target.cpu(), checkpoint.load(name, dtype)), "what was loaded is what is stored"
    checkpoint.close()
    return sum(target.nbytes for _, target in targets), seconds


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Best GB/s of each kind."""
    best: dict[str, float] = {}
    for row in rows:
        speed = round(row["gigabytes"] / row["seconds"], 2)
        best[row["what"]] = max(best.get(row["what"], 0.0), speed)
    return best


if __name__ == "__main__":
    main()
