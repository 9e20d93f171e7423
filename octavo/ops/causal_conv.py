"""A short causal convolution per channel, with what it still needs of the past kept by row.

T tokens, C channels, W taps, K = W - 1 tokens of the past, R rows, S sequences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from octavo.base.table import LazyTable
from octavo.ops.by_rows import by_rows
from octavo.ops.contract import Op
from octavo.ops.step_rows import StepRows, example_rows


def _plain(
    x_TC: torch.Tensor,
    weight_CW: torch.Tensor,
    bias_C: torch.Tensor | None,
    windows_RKC: torch.Tensor,
    step: StepRows,
) -> torch.Tensor:
    """silu(bias + sum over w of weight[:, w] * x[t - K + w]), in float32: [T, C] in x's type.

    A sequence's earlier tokens come from its row's window (zeros before the first), which then takes the last
    K tokens. Tokens past the step's sequences give anything.
    """
    y_TC = torch.zeros_like(x_TC)
    _convolve_each(x_TC, weight_CW, bias_C, windows_RKC, step, y_TC, first=0)
    return y_TC


def _convolve_each(
    x_TC: torch.Tensor,
    weight_CW: torch.Tensor,
    bias_C: torch.Tensor | None,
    windows_RKC: torch.Tensor,
    step: StepRows,
    y_TC: torch.Tensor,
    first: int,
) -> None:
    """One sequence after the other, from this number on."""
    for row, start, end, is_fresh in step.on_host(first):
        window_KC = torch.zeros_like(windows_RKC[row]) if is_fresh else windows_RKC[row]
        known_NC = torch.cat((window_KC, x_TC[start:end]))
        taps = [known_NC[tap : tap + end - start] for tap in range(weight_CW.shape[1])]
        y_TC[start:end] = _convolved(taps, weight_CW, bias_C)
        windows_RKC[row] = known_NC[end - start :]


def _convolved(
    taps: Sequence[torch.Tensor], weight_CW: torch.Tensor, bias_C: torch.Tensor | None
) -> torch.Tensor:
    """taps: for each column of the weight what every token sees there, [T, C]. Added up in one order."""
    weight_WC = weight_CW.float().t()
    y_TC = taps[0].float() * weight_WC[0]
    for seen_TC, weight_C in zip(taps[1:], weight_WC[1:], strict=True):
        y_TC = y_TC + seen_TC.float() * weight_C
    return by_rows(functional.silu, y_TC if bias_C is None else y_TC + bias_C.float())


def causal_conv_cpu(
    x_TC: torch.Tensor,
    weight_CW: torch.Tensor,
    bias_C: torch.Tensor | None,
    windows_RKC: torch.Tensor,
    step: StepRows,
) -> torch.Tensor:
    """Sequences of one token all at once, the others one by one."""
    y_TC = torch.zeros_like(x_TC)
    rows_S, is_fresh_S = step.singles_on_host()
    count = len(rows_S)
    if count:
        windows_SKC = windows_RKC[rows_S].masked_fill_(is_fresh_S[:, None, None], 0.0)
        known_SWC = torch.cat((windows_SKC, x_TC[:count, None]), 1)
        y_TC[:count] = _convolved(known_SWC.unbind(1), weight_CW, bias_C)
        windows_RKC[rows_S] = known_SWC[:, 1:]
    _convolve_each(x_TC, weight_CW, bias_C, windows_RKC, step, y_TC, first=count)
    return y_TC


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    for channels, taps, has_bias, step in (
        (5, 4, True, example_rows((2, 0, 1), (0, 7, 1))),
        (70, 2, False, example_rows((1, 3, 9), (3, 0, 2))),
        (130, 4, True, example_rows((3, 1, 1), (0, 0, 1), (4, 5, 2), (2, 0, 3), (1, 2, 40))),
    ):
        num_tokens = int(step.starts_S1[step.num_seqs - 2])
        yield (
            torch.randn(num_tokens, channels + 3, generator=generator)[:, :channels],
            torch.randn(channels, taps, generator=generator),
            torch.randn(channels, generator=generator) if has_bias else None,
            torch.randn(6, taps - 1, channels, generator=generator),
            step,
        )


causal_conv = Op(
    name="causal_conv",
    plain=_plain,
    providers=LazyTable(
        "causal_conv provider",
        {
            "cpu": "octavo.ops.causal_conv:causal_conv_cpu",
            "cuda": "octavo.ops.triton.causal_conv:causal_conv",
        },
    ),
    examples=_examples,
    tolerance=1e-5,
    writes=(3,),
)
