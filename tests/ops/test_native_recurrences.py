"""Recurrences in the native kernels: what the plain forms say, whoever else is there."""

from __future__ import annotations

import pytest
import torch

from octavo.base.native import native_kernels
from octavo.ops.cpu.recurrent import NativeRecurrences
from octavo.ops.gated_delta import gated_delta
from octavo.ops.ssd import ssd
from tests.ops.test_native_products import KERNELS, engine

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")

STATES = {"ssd": 5, "gated_delta": 6}
"""Positions of the arguments that are written."""


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("op", [ssd, gated_delta], ids=lambda op: op.name)
def test_equal_to_the_plain_form(kernels: str, op: object) -> None:
    native = getattr(NativeRecurrences(engine(kernels)), op.name)
    for plain_arguments, arguments in zip(op.examples(), op.examples(), strict=True):
        expected, actual = op.plain(*plain_arguments), native(*arguments)
        step = arguments[STATES[op.name] + 1]
        num_tokens = int(step.starts_S1[int(step.counts[4])])
        torch.testing.assert_close(actual[:num_tokens], expected[:num_tokens], rtol=1e-4, atol=1e-4)
        at = STATES[op.name]
        torch.testing.assert_close(arguments[at], plain_arguments[at], rtol=1e-4, atol=1e-4)
