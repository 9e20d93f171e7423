"""Norm weights in float32 under a model in a narrower type (Gemma's 1 + w): no rounding before them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from octavo.ops.heads import prepare_heads
from octavo.ops.matvec import matvec
from octavo.ops.norm import add_rms_norm, rms_norm


def provider(op: Any, device: str) -> Callable[..., Any]:
    if device == "cuda":
        if find_spec("triton") is None:
            pytest.skip("Triton is not installed")
        from triton import knobs

        if not knobs.runtime.interpret:
            pytest.skip("a GPU is here: tests/gpu runs these kernels on it")
    return op.providers.load(device)


def test_the_plain_norm_rounds_once() -> None:
    x_TE = torch.randn(3, 40).bfloat16()
    weight_E = 1 + torch.randn(40) / 100
    exact = x_TE.float() * torch.rsqrt(x_TE.float().square().mean(-1, keepdim=True) + 1e-6) * weight_E
    assert torch.equal(rms_norm.plain(x_TE, weight_E, 1e-6), exact.bfloat16())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_norms(device: str) -> None:
    x_TE, delta_TE = torch.randn(5, 120).bfloat16(), torch.randn(5, 120).bfloat16()
    weight_E = 1 + torch.randn(120) / 4
    close(provider(rms_norm, device)(x_TE, weight_E, 1e-6), rms_norm.plain(x_TE, weight_E, 1e-6))
    found = provider(add_rms_norm, device)(x_TE, delta_TE, weight_E, 1e-6)
    for one, other in zip(found, add_rms_norm.plain(x_TE, delta_TE, weight_E, 1e-6), strict=True):
        close(one, other)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_heads(device: str) -> None:
    run = provider(prepare_heads, device)
    for example in prepare_heads.examples():
        if example[4] is None:
            continue
        given, expected = ([*map(narrow, example)] for _ in range(2))
        given[3] = expected[3] = example[3]
        given[4:6] = expected[4:6] = example[4:6]
        given[0], given[7], given[8] = given[0].clone(), given[7].clone(), given[8].clone()
        run(*given)
        prepare_heads.plain(*expected)
        for index in (0, 7, 8):
            close(given[index], expected[index])


def test_the_fused_product() -> None:
    run = provider(matvec, "cuda")
    x_TI, weight_OI = torch.randn(2, 96).bfloat16(), (torch.randn(10, 96) / 10).bfloat16()
    norm_I = 1 + torch.randn(96) / 4
    found = run(x_TI, weight_OI, None, norm_I, 1e-6)
    assert found.dtype == torch.bfloat16
    close(found, matvec.plain(x_TI, weight_OI, None, norm_I, 1e-6))


def narrow(value: Any) -> Any:
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.bfloat16() if is_float else value


def close(found: torch.Tensor, truth: torch.Tensor) -> None:
    assert found.dtype == truth.dtype
    torch.testing.assert_close(found, truth, atol=0.05, rtol=0.02)
