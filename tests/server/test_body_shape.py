"""What a parser would have to build is counted outside strings, wherever the slices of a body fall."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.base.errors import ErrorCode, RequestError
from octavo.server import body_shape
from octavo.server.body_shape import check_shape

TEXT = st.text(alphabet='ab"\\:,[]{} \u00e9')
DOCUMENTS = st.recursive(
    st.none() | st.integers(0, 99) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


def parts_and_commas(document: Any) -> tuple[int, int]:
    """Names, lists and objects of a document, and the commas that it is written with."""
    if not isinstance(document, dict | list):
        return 0, 0
    inner = [
        parts_and_commas(item) for item in (document.values() if isinstance(document, dict) else document)
    ]
    names = len(document) if isinstance(document, dict) else 0
    commas = max(0, len(document) - 1)
    return 1 + names + sum(parts for parts, _ in inner), commas + sum(more for _, more in inner)


def is_refused(body: bytes) -> bool:
    try:
        for _ in check_shape(body):
            pass
    except RequestError as error:
        assert error.code is ErrorCode.BODY_TOO_LARGE
        return True
    return False


@given(document=DOCUMENTS, size=st.integers(1, 9), ascii_only=st.booleans())
def test_the_bounds_are_exact(document: Any, size: int, ascii_only: bool) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    parts, commas = parts_and_commas(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_shape, "SLICE", size)
        for max_parts, max_values in ((parts, commas), (parts - 1, commas), (parts, commas - 1)):
            patch.setattr(body_shape, "MAX_PARTS", max_parts)
            patch.setattr(body_shape, "MAX_VALUES", max_values)
            # What is within the first bound with everything counted is not looked at more closely.
            is_looked_at = body_shape._count(body, (b":", b"[", b"{", b",")) > max_parts
            is_too_much = parts > max_parts or (commas > max_values and is_looked_at)
            assert is_refused(body) == is_too_much


@pytest.mark.parametrize("char", [b"\\", b'"', b"\\\\\\", b'\\"', b",", b"[", b'""', b"\x00"])
def test_what_is_not_json_ends_too(char: bytes) -> None:
    is_refused(char * 1_000_000 + b"," * 60_000)


def test_text_may_hold_what_it_likes() -> None:
    log = '{"time": "12:34:56", "values": [1, 2]}\n' * 50_000
    assert not is_refused(json.dumps({"prompt": log, "inner": json.dumps(log)}).encode())


def test_others_run_meanwhile() -> None:
    body = json.dumps({"prompt": [7] * 900_000}).encode()
    assert sum(1 for _ in check_shape(body)) >= len(body) / body_shape.SLICE
