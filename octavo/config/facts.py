"""What is known before options are resolved: of the model's files, and of the machine. Read without torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import metadata

from octavo.base.gpus import visible_gpus
from octavo.base.native import native_kernels, physical_cores
from octavo.config.pooling import PoolingFacts


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What the model's files say; read without torch."""

    name: str
    """Short name to serve under."""
    architecture: str
    model_max_len: int
    """Positions the model was made for, rope scaling included."""
    vocab_size: int
    """Rows of the embedding table."""
    stored_dtype: str
    """Main type of the stored weights: float32, bfloat16, float16 or a GGUF type such as Q4_1."""
    state_bytes: int = 0
    """What recurrent layers keep of a request, however long it is."""
    pooling: PoolingFacts | None = None
    """How it answers with numbers, if it does."""
    can_write: bool = True
    """It predicts tokens, if it is let."""


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What the device is good at; read without torch."""

    kind: str
    """'cpu' or 'cuda'."""
    has_fast_bfloat16: bool
    name: str = "CPU"
    why: str = "no GPU was found"
    """Why this device and no other."""
    kernels: str | None = None
    """The native kernels that this machine's processor runs; None: there are none."""
    num_cores: int = 1
    """Physical cores that this process may use."""


CPU = DeviceFacts(kind="cpu", has_fast_bfloat16=False)


def local_device() -> DeviceFacts:
    """The device that this machine's engine runs on unless told otherwise."""
    gpus = visible_gpus()
    cpu = dataclasses.replace(CPU, kernels=native_kernels(), num_cores=physical_cores())
    if not gpus:
        return cpu
    if metadata.version("torch").endswith("+cpu"):
        return dataclasses.replace(
            cpu, why=f"the {gpus[0].name} needs a torch built for CUDA; this one is not"
        )
    return DeviceFacts(
        kind="cuda",
        has_fast_bfloat16=gpus[0].capability >= (8, 0),
        name=gpus[0].name,
        why="the first GPU of this machine",
        kernels=cpu.kernels,
        num_cores=cpu.num_cores,
    )
