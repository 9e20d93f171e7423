"""Shorthands of this folder: make a row, make its token table, sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from sampling_rows import Row, Step, Table, make_table, sample

from octavo.messages.params import SamplingParams

SampleRows = Callable[..., Step]
MakeRow = Callable[..., Row]


@pytest.fixture
def sample_rows() -> SampleRows:
    return sample


@pytest.fixture
def table_of() -> Callable[[dict[int, Row]], Table]:
    return make_table


@pytest.fixture
def row() -> MakeRow:
    def make(prompt: Sequence[int] = (2,), output: Sequence[int] = (), key: int = 0, **params: object) -> Row:
        return Row(params=SamplingParams(**params), prompt=list(prompt), output=list(output), key=key)  # type: ignore[arg-type]

    return make
