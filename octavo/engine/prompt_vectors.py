"""Prompt vectors from callers: read from a safetensors file or a tensor, and checked. Never unpickled.

Their numbers are what the model's embedding holds for a token, before any scaling of the model's own.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any, cast, get_args

from octavo.base.errors import EngineError, ErrorCode, ModelFileError, RequestError
from octavo.messages.params import SamplingParams
from octavo.messages.prompt_vectors import PromptVectors, VectorType
from octavo.weights.safetensors import read_header

if TYPE_CHECKING:
    import torch

PARAM = "prompt_embeds"
MAX_HEADER_BYTES = 64 * 1024
MAX_HELD_BYTES = 2**30
"""Of all requests that run or wait."""

TYPES = get_args(VectorType)
LARGEST = {"float32": 3.4028234663852886e38, "bfloat16": 3.3895313892515355e38, "float16": 65504.0}
"""The largest number of each type."""


def vectors_from_file(data: bytes, param: str = PARAM) -> PromptVectors:
    """Read a safetensors file of one tensor [tokens, hidden]. Raises RequestError."""
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES and len(data) > 8:
        raise RequestError(
            f"{param} is not a safetensors file with one tensor: its header would be over {MAX_HEADER_BYTES} "
            "bytes long.",
            param=param,
        )
    try:
        tensors = read_header(data, param)
    except ModelFileError as error:
        fault = re.sub(r"[;.] [Ff]etch it again\.$", ".", error.message)
        raise RequestError(f"Not a sound safetensors file: {fault}", param=param) from None
    if len(tensors) != 1:
        raise RequestError(f"{param} holds {len(tensors)} tensors; it must hold one.", param=param)
    (tensor,) = tensors.values()
    body = data[tensor.start : tensor.start + tensor.num_bytes]
    return _checked(body, tensor.dtype, tensor.shape, param)


def vectors_from_tensor(tensor: torch.Tensor, param: str = PARAM) -> PromptVectors:
    """Take over a tensor [tokens, hidden] of torch. Raises RequestError."""
    import torch

    if tensor.layout is not torch.strided:
        raise RequestError(f"{param} is a sparse tensor; give a dense one.", param=param)
    dtype = str(tensor.dtype).removeprefix("torch.")
    _check_type(dtype, tuple(tensor.shape), param)
    held = tensor.detach().to("cpu").contiguous()
    return _checked(held.view(torch.uint8).numpy().tobytes(), dtype, tuple(held.shape), param)


def vectors_from(value: Any, param: str = PARAM) -> PromptVectors:
    """Of what a caller in Python gives: a tensor, the bytes of a safetensors file, or finished vectors."""
    if isinstance(value, PromptVectors):
        return value
    if isinstance(value, bytes):
        return vectors_from_file(value, param)
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "layout"):
        return vectors_from_tensor(value, param)
    raise RequestError(
        f"{param} must be a torch tensor [tokens, hidden] or the bytes of a safetensors file that holds one.",
        param=param,
    )


def check_vectors(vectors: PromptVectors, *, width: int, dtype: str, param: str = PARAM) -> None:
    """Raise RequestError unless a model of this hidden size, computing in `dtype`, can read them."""
    if vectors.width != width:
        raise RequestError(
            f"{param} has vectors of {vectors.width} numbers; this model's have {width}.", param=param
        )
    if vectors.largest > LARGEST[dtype]:
        raise RequestError(
            f"{param} holds a number of {vectors.largest:g}; this model computes in {dtype}, which ends at "
            f"{LARGEST[dtype]:g}.",
            param=param,
        )


def check_room_for(num_bytes: int, *, held: int) -> None:
    """Raise OVERLOADED unless so many may join those that are held."""
    if held + num_bytes > MAX_HELD_BYTES:
        raise EngineError(
            f"The requests that run or wait hold {held} bytes of prompt_embeds; {MAX_HELD_BYTES} are the "
            "most. Try again soon.",
            code=ErrorCode.OVERLOADED,
        )


def refuse_prompt_vectors(param: str = PARAM) -> RequestError:
    """The error of an engine that was not told to take any."""
    return RequestError(
        f"{param} is off: start the server with --enable-prompt-embeds (offline: "
        "LLM(..., enable_prompt_embeds=True)), or send text or token ids.",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param=param,
    )


def check_without_tokens(params: SamplingParams) -> None:
    """Raise RequestError for what needs to know the prompt's tokens."""
    reasons = {
        "prompt_logprobs": params.prompt_logprobs is not None,
        "truncate_prompt_tokens": params.truncate_prompt_tokens is not None,
        "repetition_penalty": params.repetition_penalty != 1.0 and params.repeat_last_n != 0,
        "dry_multiplier": params.dry_multiplier > 0.0 and params.dry_penalty_last_n != 0,
    }
    for name, is_asked in reasons.items():
        if is_asked:
            raise needs_tokens(name)


def needs_tokens(name: str) -> RequestError:
    """A parameter that does not go with such a prompt."""
    neutral = {"repetition_penalty": "set it to 1", "dry_multiplier": "set it to 0"}.get(name, "leave it out")
    return RequestError(
        f"{name} is about the prompt's tokens, and a prompt of {PARAM} has none; {neutral}.",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param=name,
    )


def _checked(data: bytes, dtype: str, shape: tuple[int, ...], param: str) -> PromptVectors:
    _check_type(dtype, shape, param)
    num_tokens, width = shape
    largest = _largest(data, dtype)
    if not math.isfinite(largest):
        raise RequestError(f"{param} holds NaN or an infinite number.", param=param)
    known = hashlib.sha256(f"{dtype} {num_tokens} {width} ".encode())
    known.update(data)
    return PromptVectors(
        data=data,
        dtype=cast(VectorType, dtype),
        num_tokens=num_tokens,
        width=width,
        largest=largest,
        digest=known.digest(),
    )


def _check_type(dtype: str, shape: tuple[int, ...], param: str) -> None:
    if dtype not in TYPES:
        raise RequestError(f"{param} is of type {dtype}; it must be one of {', '.join(TYPES)}.", param=param)
    if len(shape) != 2 or 0 in shape:
        raise RequestError(
            f"{param} has the shape {list(shape)}; it must be [tokens, hidden], with at least one token.",
            param=param,
        )


def load_numpy() -> None:
    """Now, and not with the first prompt of vectors, in an event loop."""
    import numpy  # noqa: F401


def _largest(data: bytes, dtype: str) -> float:
    """The largest magnitude; NaN or infinity if one of them is in it.

    Without their sign, numbers are in the order of their bits, with infinity and NaN at the end.
    """
    import numpy as np

    bits_type, mask = ("<u4", 0x7FFFFFFF) if dtype == "float32" else ("<u2", 0x7FFF)
    bits = int((np.frombuffer(data, dtype=bits_type) & mask).max())
    if dtype == "float16":
        return float(np.uint16(bits).view(np.float16))
    # A bfloat16 is the upper half of a float32.
    return float(np.uint32(bits << 16 if dtype == "bfloat16" else bits).view(np.float32))
