"""Every provider of every op equals the plain form on the op's own examples.

The providers for GPUs run here too: interpreted, on CPU tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from octavo.ops.contract import Op
from octavo.ops.table import OPS

PROVIDERS = [(name, device) for name in OPS for device in OPS.load(name).providers]
FLOAT_PROVIDERS = [
    (name, device)
    for name, device in PROVIDERS
    if any(
        isinstance(x, torch.Tensor) and x.is_floating_point() for x in next(iter(OPS.load(name).examples()))
    )
]


@pytest.mark.parametrize(("name", "device"), PROVIDERS)
def test_a_provider_equals_the_plain_form(name: str, device: str) -> None:
    op = OPS.load(name)
    assert op.name == name
    run = provider(op, device)
    assert run is not op.plain
    for given, expected, before in zip(op.examples(), op.examples(), op.examples(), strict=True):
        found, truth = run(*given), op.plain(*expected)
        assert_close(found, truth, op.tolerance, op.tolerance)
        for i, value in enumerate(given):
            if i in op.writes:
                assert_close(value, expected[i], op.tolerance, op.tolerance)
            elif isinstance(value, torch.Tensor):
                assert torch.equal(value, before[i]), f"argument {i} is left as it was"


@pytest.mark.parametrize(("name", "device"), FLOAT_PROVIDERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(name: str, device: str, dtype: torch.dtype) -> None:
    op = OPS.load(name)
    run = provider(op, device)
    for given, expected in zip(op.examples(), op.examples(), strict=True):
        given, expected = narrow(op, given, dtype), narrow(op, expected, dtype)
        found, truth = run(*given), op.plain(*expected)
        for result in tensors(found):
            assert result.dtype == dtype
        assert_close(found, truth, 0.05, 0.02)
        for i in op.writes:
            assert_close(given[i], expected[i], 0.05, 0.02)


@pytest.mark.parametrize("name", list(OPS))
def test_the_plain_form_writes_what_it_says(name: str) -> None:
    op = OPS.load(name)
    written = set()
    for given, before in zip(op.examples(), op.examples(), strict=True):
        op.plain(*given)
        written |= {
            i
            for i, value in enumerate(given)
            if isinstance(value, torch.Tensor) and not torch.equal(value, before[i])
        }
    assert written == set(op.writes)


def test_a_device_without_a_provider_runs_the_plain_form() -> None:
    op = OPS.load("rms_norm")
    assert op.on(torch.device("meta")) is op.plain


def provider(op: Op[..., Any], device: str) -> Callable[..., Any]:
    if device == "cuda":
        if find_spec("triton") is None:
            pytest.skip("Triton is not installed")
        from triton import knobs

        if not knobs.runtime.interpret:
            pytest.skip("a GPU is here: tests/gpu runs these kernels on it")
    return op.providers.load(device)


def narrow(op: Op[..., Any], example: tuple[Any, ...], dtype: torch.dtype) -> list[Any]:
    """The example as a model of a narrower type would give it."""
    return [
        value.to(dtype)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and i not in op.float32_arguments
        else value
        for i, value in enumerate(example)
    ]


def tensors(result: Any) -> list[torch.Tensor]:
    if result is None:
        return []
    return [result] if isinstance(result, torch.Tensor) else list(result)


def assert_close(found: Any, truth: Any, atol: float, rtol: float) -> None:
    assert len(tensors(found)) == len(tensors(truth))
    for one, other in zip(tensors(found), tensors(truth), strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=rtol)
