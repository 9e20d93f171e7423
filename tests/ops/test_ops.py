"""Every provider of every op equals the plain form on the op's own examples."""

from __future__ import annotations

import pytest
import torch

from octavo.ops.table import OPS


@pytest.mark.parametrize("name", list(OPS))
def test_the_form_for_this_device_equals_the_plain_one(name: str) -> None:
    op = OPS.load(name)
    assert op.name == name
    function = op.on(torch.device("cpu"))
    assert function is not op.plain
    for example in op.examples():
        kept = [value.clone() if isinstance(value, torch.Tensor) else value for value in example]
        found = function(*example)
        torch.testing.assert_close(found, op.plain(*kept), atol=op.tolerance, rtol=op.tolerance)
        for value, before in zip(example, kept, strict=True):
            assert value is before or torch.equal(value, before), "arguments are left as they were"


@pytest.mark.parametrize("name", list(OPS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(name: str, dtype: torch.dtype) -> None:
    op = OPS.load(name)
    for example in op.examples():
        narrow = [value.to(dtype) if isinstance(value, torch.Tensor) else value for value in example]
        found = op.on(torch.device("cpu"))(*narrow)
        assert found.dtype == dtype
        torch.testing.assert_close(found, op.plain(*narrow), atol=0.05, rtol=0.02)


def test_a_device_without_a_provider_runs_the_plain_form() -> None:
    op = OPS.load("rms_norm")
    assert op.on(torch.device("meta")) is op.plain
