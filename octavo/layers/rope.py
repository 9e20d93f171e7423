"""Rotary angles for every kind of position scaling. T tokens, D head width.

A token's rotation depends on its own position and on nothing else: not on the batch, the chunking or
the prompt's length. For the kind "dynamic" that means: up to the original length plain rope; after it
each token turns as if the text ended with it, which is what transformers computes when it decodes token
by token with a cache (its prefill of a longer prompt turns all tokens by the prompt's length instead).
For the kind "longrope" one of two sets of factors holds for all texts of an engine: the short one if no
text can be longer than the original length, else the long one, which is what transformers takes for
texts longer than that (shorter ones it turns by the short factors; mixed, their keys could not be shared).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RopeFacts:
    """What a model's config says about positions."""

    kind: str
    theta: float
    head_dim: int
    """Of which all is rotated; where a model rotates a part of each head: that part's width."""
    max_positions: int
    """max_position_embeddings"""
    values: Mapping[str, Any]
    """The other entries of rope_parameters (or rope_scaling)."""

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], head_dim: int, *, may_be_partial: bool = False
    ) -> RopeFacts:
        """From a Hugging Face config in the new spelling (rope_parameters) or the old (rope_scaling).

        may_be_partial: the family heeds partial_rotary_factor, which for others is refused.
        """
        values = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
        by_type = [name for name, value in values.items() if isinstance(value, Mapping)]
        if by_type:
            raise ModelFileError(
                f"The model's config has a rope for each of {', '.join(by_type)}; this family of models "
                "has one for all layers."
            )
        if config.get("original_max_position_embeddings") is not None:
            values["original_max_position_embeddings"] = config["original_max_position_embeddings"]
        part = float(values.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)
        facts = cls(
            kind=str(values.get("rope_type") or values.get("type") or "default"),
            theta=float(values.get("rope_theta") or config.get("rope_theta") or 10000.0),
            head_dim=_rotated_width(head_dim, part, may_be_partial),
            max_positions=int(config.get("max_position_embeddings") or 2048),
            values=values,
        )
        if facts.kind not in _KINDS:
            raise ModelFileError(
                f"The model's rope type is {facts.kind!r}; supported are {', '.join(sorted(_KINDS))}."
            )
        if not math.isfinite(facts.theta) or facts.theta <= 1.0:
            raise ModelFileError(f"rope_theta is {facts.theta}; it must be a finite number over 1.")
        return facts

    @property
    def original_max_positions(self) -> int:
        return int(self.values.get("original_max_position_embeddings") or self.max_positions)

    def number(self, name: str, default: float | None = None) -> float:
        """A positive entry; ModelFileError names it otherwise."""
        value = self.values.get(name)
        value = default if value is None else value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        number = float(value) if value is not None and is_number else math.nan
        if not 0.0 < number < math.inf:
            raise ModelFileError(
                f"{name} of rope type {self.kind!r} is {value!r}; it must be a number over 0."
            )
        return number


def _rotated_width(head_dim: int, part: float, may_be_partial: bool) -> int:
    if part == 1.0:
        return head_dim
    if not may_be_partial:
        raise ModelFileError(f"partial_rotary_factor is {part}; this family of models has only 1.")
    width = int(head_dim * part)
    if not 0.0 < part < 1.0 or width < 2 or width % 2:
        raise ModelFileError(
            f"partial_rotary_factor is {part}, so {width} of the {head_dim} values of a head would be "
            f"rotated; that must be an even number from 2 to {head_dim}."
        )
    return width


def rotation_table(facts: RopeFacts, placement: Placement) -> torch.Tensor:
    """float32 [P, D]: for each position D / 2 cosines, then D / 2 sines. Made once, read by every layer."""
    if facts.kind == "longrope":
        facts = _choose_longrope(facts, placement.max_positions)
    positions_P1 = torch.arange(placement.max_positions, dtype=torch.float32)[:, None]
    angles = positions_P1 * _KINDS[facts.kind](facts)(positions_P1)
    table_PD = torch.cat((angles.cos(), angles.sin()), -1) * _attention_factor(facts)
    return table_PD.to(placement.device)


Frequencies = Callable[[torch.Tensor], torch.Tensor]
"""Positions [T, 1] -> angle per position, [1 or T, D / 2], float32."""


def _exponents(facts: RopeFacts, device: torch.device | None = None) -> torch.Tensor:
    return torch.arange(0, facts.head_dim, 2, dtype=torch.float32, device=device) / facts.head_dim


def _plain(facts: RopeFacts) -> torch.Tensor:
    return 1.0 / (facts.theta ** _exponents(facts))


def _default(facts: RopeFacts) -> Frequencies:
    return lambda _: _plain(facts)[None]


def _linear(facts: RopeFacts) -> Frequencies:
    factor = facts.number("factor")
    return lambda _: _plain(facts)[None] / factor


def _llama3(facts: RopeFacts) -> Frequencies:
    """Long waves are stretched by `factor`, short ones kept, those between blended."""
    factor = facts.number("factor")
    low, high = facts.number("low_freq_factor"), facts.number("high_freq_factor")
    if high <= low:
        raise ModelFileError(f"high_freq_factor {high} of the rope must be over low_freq_factor {low}.")
    original = facts.number("original_max_position_embeddings")
    plain = _plain(facts)
    turns = original * plain / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    blended = (1 - kept) * plain / factor + kept * plain
    return lambda _: blended[None]


def _dynamic(facts: RopeFacts) -> Frequencies:
    """The base grows with the length once the original length is passed."""
    factor = facts.number("factor")
    power = facts.head_dim / (facts.head_dim - 2)

    def frequencies(positions_T1: torch.Tensor) -> torch.Tensor:
        lengths_T1 = (positions_T1 + 1).clamp(min=facts.max_positions)
        stretch_T1 = factor * lengths_T1 / facts.max_positions - (factor - 1)
        return 1.0 / ((facts.theta * stretch_T1**power) ** _exponents(facts, positions_T1.device))

    return frequencies


def _yarn(facts: RopeFacts) -> Frequencies:
    """Dimensions that turn often over the original length are kept, slow ones stretched."""
    factor = _stretch(facts)

    def dimension(turns: float) -> float:
        """Where a dimension makes this many turns over the original length."""
        wavelengths = facts.original_max_positions / (turns * 2 * math.pi)
        return facts.head_dim * math.log(wavelengths) / (2 * math.log(facts.theta))

    first, last = dimension(facts.number("beta_fast", 32.0)), dimension(facts.number("beta_slow", 1.0))
    if facts.values.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, facts.head_dim - 1)
    if first == last:
        last += 0.001
    stretched = ((torch.arange(facts.head_dim // 2, dtype=torch.float32) - first) / (last - first)).clamp(
        0, 1
    )
    plain = _plain(facts)
    blended = plain / factor * stretched + plain * (1 - stretched)
    return lambda _: blended[None]


def _choose_longrope(facts: RopeFacts, longest: int) -> RopeFacts:
    """The same with `chosen`: the factors for an engine whose texts have up to `longest` tokens."""
    original = facts.original_max_positions
    name = "long_factor" if longest > original else "short_factor"
    if longest > original:
        logger.info(
            "Texts may have %d tokens, more than the %d of the first training: all of them use the rope's "
            "long_factor. A max_model_len of at most %d chooses short_factor.",
            longest,
            original,
            original,
        )
    return replace(facts, values={**facts.values, "chosen": _factors(facts, name)})


def _factors(facts: RopeFacts, name: str) -> list[float]:
    """One positive number for each pair of rotated values; ModelFileError with the counts otherwise."""
    given, wanted = facts.values.get(name), facts.head_dim // 2
    if not isinstance(given, list) or len(given) != wanted:
        stated = f"has {len(given)} numbers" if isinstance(given, list) else f"is {str(given)[:40]}"
        raise ModelFileError(f"{name} of rope type 'longrope' {stated}; it must be a list of {wanted}.")
    for value in given:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 < value < math.inf:
            raise ModelFileError(f"{name} of rope type 'longrope' holds {value!r}; all must be over 0.")
    return [float(value) for value in given]


def _longrope(facts: RopeFacts) -> Frequencies:
    """Each dimension is stretched by a factor of its own."""
    stretched = 1.0 / (torch.tensor(facts.values["chosen"]) * facts.theta ** _exponents(facts))
    return lambda _: stretched[None]


def _stretch(facts: RopeFacts) -> float:
    return facts.number("factor", facts.max_positions / facts.original_max_positions)


def _attention_factor(facts: RopeFacts) -> float:
    """What yarn and longrope multiply cosines and sines with, to keep the scores' spread."""
    if facts.kind not in ("yarn", "longrope"):
        return 1.0
    if facts.values.get("attention_factor") is not None:
        return facts.number("attention_factor")
    factor = _stretch(facts)
    if facts.kind == "longrope":
        original = facts.original_max_positions
        if original < 2:
            raise ModelFileError(f"original_max_position_embeddings is {original}; it must be at least 2.")
        return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))

    if facts.values.get("mscale") and facts.values.get("mscale_all_dim"):
        return _spread(factor, facts.number("mscale")) / _spread(factor, facts.number("mscale_all_dim"))
    return _spread(factor, 1.0)


def score_factor(facts: RopeFacts) -> float:
    """What DeepSeek multiplies all scores with where its rope is stretched: mscale_all_dim's spread, twice.

    Queries and keys each have it, in the columns that are rotated and in those that are not.
    """
    if facts.kind == "default" or not facts.values.get("mscale_all_dim"):
        return 1.0
    return _spread(_stretch(facts), facts.number("mscale_all_dim")) ** 2


def _spread(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


_KINDS: dict[str, Callable[[RopeFacts], Frequencies]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
}
