"""One run spread over servers that work side by side."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.tiny import save_model

Part = TypeVar("Part")


@dataclass(frozen=True)
class Share:
    """What one of several servers does."""

    number: int
    """Which of them."""
    seed: int
    amount: int
    model: Path
    folder: Path
    ends_at: float
    """Monotonic: no new fault or restart from then on."""


def run_shares(
    work: Callable[[Share], Part], *, amount: int, servers: int, seed: int, max_seconds: float
) -> list[Part]:
    """`work` once for each server, each in a process of its own, with its part of `amount`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_model(folder / "tiny")
        shares = [
            Share(
                number=number,
                seed=seed * 1000 + number,
                amount=amount // servers + (number < amount % servers),
                model=model,
                folder=folder,
                ends_at=time.monotonic() + max_seconds,
            )
            for number in range(servers)
        ]
        if servers == 1:
            return [work(shares[0])]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(servers, mp_context=context) as pool:
            return list(pool.map(work, shares))
