"""The rarer samplers written out plainly, one row at a time, as their sources define them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float64]
Mask = NDArray[np.bool_]


def softmax(logits: Row) -> Row:
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def within_sigma(logits: Row, sigmas: float) -> Mask:
    finite = logits[np.isfinite(logits)]
    return logits >= finite.max() - sigmas * finite.std()


def typical(p: Row, share: float) -> Mask:
    """transformers' and llama.cpp's: by distance from the entropy, up to and with the one that passes."""
    surprise = -np.log(np.maximum(p, 1e-300))
    entropy = float((p * surprise).sum())
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    total, kept = 0.0, np.zeros(len(p), dtype=bool)
    for token in order:
        kept[token] = True
        total += p[token]
        if total > share:
            break
    return kept


def xtc(p: Row, threshold: float) -> Mask:
    """Over probabilities that add up to 1."""
    order = np.argsort(-p, kind="stable")
    last = -1
    for place, token in enumerate(order):
        if p[token] < threshold:
            break
        last = place
    kept = np.ones(len(p), dtype=bool)
    if last > 0:
        kept[order[:last]] = False
    return kept


def dry_losses(
    tokens: Sequence[int],
    *,
    multiplier: float,
    base: float,
    allowed: int,
    last_n: int,
    breakers: Sequence[Sequence[int]] = (),
) -> dict[int, float]:
    """What each token loses; a breaker is a head and its tail."""
    window = list(tokens) if last_n == -1 else list(tokens)[max(0, len(tokens) - last_n) :]
    count = len(window)
    newest = window[::-1]
    limit = count
    for back, token in enumerate(newest):
        lengths = [
            len(tail)
            for head, *tail in breakers
            if head == token
            and len(tail) <= back
            and all(newest[back - 1 - i] == tail[i] for i in range(len(tail)))
        ]
        if lengths:
            limit = back - max(lengths)
            break
    singles = {breaker[0] for breaker in breakers if len(breaker) == 1}
    longest: dict[int, int] = {}
    for back in range(1, count):
        length = 0
        while back + length < count and newest[length] == newest[back + length]:
            length += 1
        length = min(length, limit)
        follower = newest[back - 1]
        if length >= allowed and follower not in singles:
            longest[follower] = max(longest.get(follower, 0), length)
    most = int(88.7228391 / math.log(base)) if base > 1.000001 else 0
    return {
        token: multiplier * base ** (min(length - allowed, most) if most else length - allowed)
        for token, length in longest.items()
    }


def forced_token(
    output: Sequence[int], *, start: Sequence[int], end: Sequence[int], budget: int, is_open: bool
) -> int | None:
    """What a thinking budget forces after this output, told by reading it token by token."""
    start, end = list(start), list(end)
    began = 0 if is_open else None
    for count in range(1, len(output) + 1):
        seen = list(output[:count])
        if began is None and start and seen[-len(start) :] == start and count - len(start) >= 0:
            began = count
        elif seen[-len(end) :] == end and len(seen) >= len(end):
            began = None
    if began is None or len(output) - began < budget:
        return None
    return end[min(len(output) - began - budget, len(end) - 1)]
