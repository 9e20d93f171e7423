"""Sealed frames: garbage, other keys, other versions, replays and frames sent back are refused one by one."""

from __future__ import annotations

import pytest

from octavo.messages.seal import FROM_CORE, TO_CORE, BrokenSeal, Seal, new_key

KEY = new_key()


def ends() -> tuple[Seal, Seal]:
    return Seal(KEY, TO_CORE), Seal(KEY, TO_CORE)


def test_messages_come_through_in_order() -> None:
    out, into = ends()
    for message in (b"", b"a", b"x" * 100_000):
        assert bytes(into.open(out.close(message))) == message


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda frame: b"", "0 bytes"),
        (lambda frame: b"\x80", "1 bytes"),
        (lambda frame: b"garbage of some length, which is not ours at all", "version"),
        (lambda frame: b"OCT\x02" + frame[4:], "version"),
        (lambda frame: frame[:-1], "key"),
        (lambda frame: frame + b"x", "key"),
        (lambda frame: frame[:4] + b"\xff" + frame[5:], "key"),
        (lambda frame: frame[:12] + bytes(16) + frame[28:], "key"),
        (lambda frame: Seal(new_key(), TO_CORE).close(b"order"), "key"),
        (lambda frame: Seal(KEY, FROM_CORE).close(b"order"), "key"),
    ],
)
def test_what_is_refused(spoil, words) -> None:  # type: ignore[no-untyped-def]
    out, into = ends()
    frame = out.close(b"order")
    with pytest.raises(BrokenSeal, match=words):
        into.open(spoil(frame))
    assert bytes(into.open(frame)) == b"order", "what is refused changes nothing"


def test_replays_are_refused() -> None:
    out, into = ends()
    first, second = out.close(b"1"), out.close(b"2")
    into.open(second)
    for frame in (first, second):
        with pytest.raises(BrokenSeal, match="before"):
            into.open(frame)
    assert bytes(into.open(out.close(b"3"))) == b"3"
