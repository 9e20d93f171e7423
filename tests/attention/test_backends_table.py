"""Every backend says all that workers ask of its class: on a GPU nobody would notice before a model loads."""

from __future__ import annotations

import pytest

from octavo.attention.contract import Capability
from octavo.attention.table import BACKENDS


@pytest.mark.parametrize("name", list(BACKENDS))
def test_a_backend_says_how_it_wants_its_pages(name: str) -> None:
    if "triton" in name:
        pytest.importorskip("triton")
    backend = BACKENDS.load(name)
    assert backend.capabilities and all(isinstance(each, Capability) for each in backend.capabilities)
    assert isinstance(backend.is_head_major, bool) and isinstance(backend.turns_keys, bool)
    assert backend.is_head_major or not backend.turns_keys, "only head-major pages have turned keys"
