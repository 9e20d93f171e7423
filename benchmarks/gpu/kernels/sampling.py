"""Times choose_tokens on the GPU at real shapes, after a check against the plain form.

Run: PYTHONPATH=. python3 benchmarks/gpu/kernels/sampling.py
"""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from benchmarks.gpu.timing import graph_time_us
from octavo.ops.sampling.choose import choose_plain
from octavo.ops.sampling.settings import FILTERED, GREEDY, NO_TOP_K, UNFILTERED, Draws, settings_line
from octavo.ops.triton import pdl, sampling

SETTINGS = {
    "greedy": (GREEDY, 0.0, NO_TOP_K, 1.0, 0.0),
    "temperature": (UNFILTERED, 0.8, NO_TOP_K, 1.0, 0.0),
    "top_k_top_p": (FILTERED, 0.7, 50, 0.95, 0.0),
    "flat top_p": (FILTERED, 1.5, NO_TOP_K, 0.95, 0.0),
}
SHAPES = ((1, 151936), (1, 128256), (64, 128256), (256, 128256), (256, 151936), (1024, 151936))
L2_BYTES = 50 * 2**20


def main() -> None:
    torch.manual_seed(0)
    _check()
    with ThreadPoolExecutor(8) as pool:  # compile what will be timed
        list(pool.map(_compile, itertools.product(SETTINGS, {vocab_size for _, vocab_size in SHAPES})))
    table: dict[str, dict[str, float]] = {}
    print(f"{'rows x vocabulary':>20} {'argmax':>8} " + " ".join(f"{name:>12}" for name in SETTINGS) + "  us")
    for num_rows, vocab_size in SHAPES:
        times = {"torch.argmax": _time(partial(torch.argmax, dim=-1), num_rows, vocab_size)}
        for name in SETTINGS:
            draws = _draws(name, num_rows)
            times[name] = _time(partial(_choose, draws=draws), num_rows, vocab_size)
        gigabytes = num_rows * vocab_size * 2 / times["greedy"] / 1e3
        table[f"{num_rows},{vocab_size}"] = times
        print(
            f"{num_rows:>8} x {vocab_size:<9} "
            + " ".join(f"{time:>12.1f}" for time in times.values())
            + f"  greedy {gigabytes:.0f} GB/s = {gigabytes / 3000:.2f} of 3.0 TB/s"
        )
    print(json.dumps({"times_us": table, "sweep_us": _sweep()}))


def _choose(logits_SV: torch.Tensor, draws: Draws | None) -> torch.Tensor:
    return sampling.choose_tokens(logits_SV, draws)


def _draws(name: str, num_rows: int) -> Draws | None:
    kind, temperature, top_k, top_p, min_p = SETTINGS[name]
    if kind == GREEDY:
        return None
    lines = [
        settings_line(
            kind=kind, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, random_key=row
        )
        for row in range(num_rows)
    ]
    rows_S = torch.arange(num_rows, device="cuda")
    return Draws.of([kind] * num_rows, torch.tensor(lines, device="cuda"), rows_S, rows_S + 100)


def _logits(num_rows: int, vocab_size: int) -> torch.Tensor:
    """Few likely tokens and a long tail, like a language model's."""
    falling_V = -1.6 * torch.arange(1, vocab_size + 1, device="cuda").log()
    noise_SV = torch.randn(num_rows, vocab_size, device="cuda")
    return (falling_V[torch.randperm(vocab_size, device="cuda")] + 0.3 * noise_SV).bfloat16()


def _check() -> None:
    """Exponentials differ in the last bits, so a draw may differ where it falls on a border."""
    logits_SV = _logits(64, 128256)
    for name in SETTINGS:
        draws = _draws(name, 64)
        found_2S, expected_2S = sampling.choose_tokens(logits_SV, draws), choose_plain(logits_SV, draws)
        equal = (found_2S == expected_2S).all(0).float().mean().item()
        print(f"check {name}: {equal:.3f} of rows equal the plain form")
        assert equal >= (1.0 if draws is None else 0.85), name


def _compile(case: tuple[str, int]) -> None:
    name, vocab_size = case
    _choose(torch.zeros(1, vocab_size, dtype=torch.bfloat16, device="cuda"), _draws(name, 1))


def _time(call: partial[torch.Tensor], num_rows: int, vocab_size: int) -> float:
    copies = min(max(2, 2 * L2_BYTES // (num_rows * vocab_size * 2)), 200)
    logits = [_logits(num_rows, vocab_size) for _ in range(min(copies, 8))]
    while len(logits) < copies:
        logits.append(logits[len(logits) % 8].clone())
    return round(graph_time_us([partial(call, x) for x in logits]), 2)


def _sweep() -> dict[str, float]:
    """The choices that were made by thought, beside their neighbours."""
    times = {}
    for chunk, warps in ((4096, 4), (4096, 8), (8192, 8)):
        sampling.CHUNK, sampling.SCAN_WARPS = chunk, warps
        for num_rows, vocab_size in ((1, 151936), (256, 128256)):
            label = f"greedy {num_rows} x {vocab_size}, chunk {chunk}, {warps} warps"
            times[label] = _time(partial(_choose, draws=None), num_rows, vocab_size)
    sampling.CHUNK, sampling.SCAN_WARPS = 4096, 4
    for warps, registers in ((8, 128), (8, 255), (16, 128)):
        sampling.PICK_WARPS, sampling.PICK_REGISTERS = warps, registers
        for name in ("top_k_top_p", "flat top_p"):
            label = f"{name} 256 x 128256, {warps} warps, {registers} registers"
            times[label] = _time(partial(_choose, draws=_draws(name, 256)), 256, 128256)
    sampling.PICK_WARPS, sampling.PICK_REGISTERS = 8, 128
    pdl.ENABLED = False
    times["greedy 1 x 151936 without dependent launch"] = _time(partial(_choose, draws=None), 1, 151936)
    pdl.ENABLED = True
    for label, time in times.items():
        print(f"{time:>10.1f} us  {label}")
    return times


if __name__ == "__main__":
    main()
