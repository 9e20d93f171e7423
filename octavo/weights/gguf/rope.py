"""Rope scaling of a GGUF file -> the `rope_scaling` entry of a Hugging Face config.

llama3 scaling is stored as a tensor with one divisor per pair of dimensions; we find the parameters that
give these divisors. linear and yarn are plain metadata.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.keys import Keys, shortest

LLAMA3_LOW, LLAMA3_HIGH = 1.0, 4.0
LLAMA3_ORIGINAL_LENGTHS = (8192, 4096, 2048, 16384, 32768)


def rope_scaling(
    keys: Keys,
    divisors: npt.NDArray[np.float32] | None,
    *,
    head_dim: int,
    theta: float,
    has_log_multiplier: bool = False,
) -> dict[str, Any] | None:
    """None where positions are not scaled. Raises ModelFileError for scalings we do not know.

    has_log_multiplier: yarn_log_multiplier is a tenth of DeepSeek's mscale and mscale_all_dim.
    """
    if divisors is not None and not np.all(divisors == 1):
        return _llama3(divisors, head_dim, theta)
    kind = keys.text("rope.scaling.type")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear"))
    if kind is None and factor is not None:
        kind = "linear"
    if kind in (None, "none") or (kind == "linear" and factor in (None, 1.0)):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return _yarn(keys, factor, has_log_multiplier)
    raise ModelFileError(f"{keys.prefix}.rope.scaling.type is {kind!r}; none, linear and yarn are supported.")


def longrope(
    keys: Keys, short: npt.NDArray[np.float32], long: npt.NDArray[np.float32], *, head_dim: int
) -> dict[str, Any]:
    """Of files with two rows of divisors. Raises ModelFileError unless both are for heads of this width."""
    for divisors in (short, long):
        if divisors.shape != (head_dim // 2,) or not np.all(np.isfinite(divisors) & (divisors > 0)):
            raise ModelFileError(
                f"The GGUF file has {divisors.size} rope factors; heads of which {head_dim} values are "
                f"rotated need {head_dim // 2}, finite and over 0."
            )
    scaling: dict[str, Any] = {
        "rope_type": "longrope",
        "short_factor": [shortest(float(value)) for value in short],
        "long_factor": [shortest(float(value)) for value in long],
    }
    attention = keys.number("rope.scaling.attn_factor")
    return scaling if attention is None else {**scaling, "attention_factor": attention}


def _yarn(keys: Keys, factor: float | None, has_log_multiplier: bool) -> dict[str, Any]:
    if factor is None:
        raise ModelFileError(f"The GGUF file has yarn rope scaling but no {keys.prefix}.rope.scaling.factor.")
    for name in ("rope.scaling.yarn_ext_factor", "rope.scaling.yarn_log_multiplier"):
        if keys.number(name, 1.0) != 1.0 and not (has_log_multiplier and name.endswith("log_multiplier")):
            raise ModelFileError(
                f"The GGUF file changes {keys.prefix}.{name}; that kind of yarn is not supported."
            )
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    original = keys.optional_count("rope.scaling.original_context_length")
    scaling["original_max_position_embeddings"] = original or keys.count("context_length")
    for ours, theirs in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
        value = keys.number(f"rope.scaling.{theirs}")
        if value is not None:
            scaling[ours] = value
    if has_log_multiplier:
        multiplier = keys.number("rope.scaling.yarn_log_multiplier")
        if multiplier is None:
            return {**scaling, "attention_factor": 1.0}
        return {**scaling, "mscale": shortest(10 * multiplier), "mscale_all_dim": shortest(10 * multiplier)}
    attention = keys.number("rope.scaling.yarn_attn_factor", keys.number("rope.scaling.attn_factor"))
    if attention is not None and attention != 1.0:
        # The file's value multiplies yarn's own attention factor; the config's value replaces it.
        scaling["attention_factor"] = attention * (1.0 + 0.1 * math.log(factor))
    return scaling


def _llama3(divisors: npt.NDArray[np.float32], head_dim: int, theta: float) -> dict[str, Any]:
    if divisors.shape != (head_dim // 2,):
        raise ModelFileError(
            f"'rope_freqs.weight' has the shape {list(divisors.shape)}; heads of {head_dim} need "
            f"{head_dim // 2} values."
        )
    factor = float(divisors.max())
    if np.all(np.isfinite(divisors)) and factor > 1:
        for original in LLAMA3_ORIGINAL_LENGTHS:
            if np.allclose(divisors, _llama3_divisors(factor, original, head_dim, theta), rtol=1e-4):
                return {
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": LLAMA3_LOW,
                    "high_freq_factor": LLAMA3_HIGH,
                    "original_max_position_embeddings": original,
                }
    raise ModelFileError("'rope_freqs.weight' does not hold a llama3 rope scaling that we know.")


def _llama3_divisors(factor: float, original: int, head_dim: int, theta: float) -> npt.NDArray[np.float64]:
    """What each frequency is divided by: short waves by 1, long ones by `factor`, a blend between."""
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    keep = np.clip((original / wavelengths - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW), 0.0, 1.0)
    return 1.0 / ((1.0 - keep) / factor + keep)
