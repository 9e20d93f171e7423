"""The numbers of Mamba-2 mixers, read from a Hugging Face config and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.mamba2 import Mamba2Shape
from octavo.models.decoder_config import MAX_WIDTH, read_count

MAX_TAPS = 64


@dataclass(frozen=True, kw_only=True)
class Mamba2Names:
    """What configs call them."""

    num_heads: str = "mamba_n_heads"
    head_dim: str = "mamba_d_head"
    num_groups: str = "mamba_n_groups"
    state_size: str = "mamba_d_state"
    num_taps: str = "mamba_d_conv"
    expand: str = "mamba_expand"
    inner: str | None = None
    """The inner width itself, where a family may say it."""


def read_mamba2(config: Mapping[str, Any], names: Mamba2Names | None = None) -> Mamba2Shape:
    """Raises ModelFileError with both numbers where two disagree."""
    names = names or Mamba2Names()
    num_heads = read_count(config, names.num_heads, MAX_WIDTH)
    num_groups = read_count(config, names.num_groups, MAX_WIDTH, 1)
    if names.inner is not None and config.get(names.inner) is not None:
        inner = read_count(config, names.inner, MAX_WIDTH)
    else:
        width = read_count(config, "hidden_size", MAX_WIDTH)
        inner = read_count(config, names.expand, MAX_WIDTH, 2) * width
    head_dim = config.get(names.head_dim)
    if head_dim in (None, "auto"):
        head_dim = inner // num_heads
    if head_dim * num_heads != inner:
        raise ModelFileError(
            f"{names.num_heads} {num_heads} times {names.head_dim} {head_dim} is not the inner width {inner}."
        )
    if num_heads % num_groups:
        raise ModelFileError(
            f"{names.num_heads} {num_heads} is not a multiple of {names.num_groups} {num_groups}."
        )
    num_taps = read_count(config, names.num_taps, MAX_TAPS, 4)
    if num_taps < 2:
        raise ModelFileError(f"{names.num_taps} is {num_taps}; it must be at least 2.")
    return Mamba2Shape(
        num_heads=num_heads,
        head_dim=head_dim,
        num_groups=num_groups,
        state_size=read_count(config, names.state_size, MAX_WIDTH),
        num_taps=num_taps,
        dt_limits=_dt_limits(config),
    )


def _dt_limits(config: Mapping[str, Any]) -> tuple[float, float]:
    limits = config.get("time_step_limit") or (0.0, float("inf"))
    try:
        least, most = (_number(limit) for limit in limits)
    except (KeyError, TypeError, ValueError):
        least, most = 1.0, 0.0
    if not 0.0 <= least < most:
        raise ModelFileError(f"time_step_limit is {str(limits)[:40]}; it must be two numbers from 0 on.")
    return least, most


def _number(value: Any) -> float:
    """transformers 5 writes what JSON has no number for as {"__float__": "Infinity"}."""
    return float(value["__float__"] if isinstance(value, Mapping) else value)
