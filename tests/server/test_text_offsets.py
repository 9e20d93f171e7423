"""Offsets of tokens are places in the text, however characters are cut into tokens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, FakeTokenizer, fake_config

from octavo.server.app import create_app
from octavo.server.openai.text_offsets import TextOffsets

PIECES = [b"a", b"\xf0\x9f", b"\x98", b"\x80", b"bc", b"\x94", "\u00e9".encode(), b"<s>", b"d"]
SPECIAL = 7


class PieceTokenizer(FakeTokenizer):
    def token_bytes(self, token_id: int) -> bytes:
        return PIECES[token_id]

    def token_text(self, token_id: int) -> str:
        return PIECES[token_id].decode(errors="replace")

    def is_special(self, token_id: int) -> bool:
        return token_id == SPECIAL


def offsets(token_ids: list[int], text: str | None = None, *, skips_special: bool = True) -> list[int]:
    return TextOffsets(PieceTokenizer(), skips_special=skips_special).of(token_ids, text)


def test_a_character_of_several_tokens_is_one_character() -> None:
    # a, an emoji in three tokens, bc, a byte that is no text, e with an accent, d
    assert offsets([0, 1, 2, 3, 4, 5, 6, 8]) == [0, 1, 1, 1, 2, 4, 5, 6]


def test_pieces_of_a_stream_go_on_where_the_last_ended() -> None:
    whole = TextOffsets(PieceTokenizer(), skips_special=True)
    assert [*whole.of([0, 1]), *whole.of([2]), *whole.of([3, 4, 8])] == [0, 1, 1, 1, 2, 4]


@pytest.mark.parametrize(("skips_special", "last"), [(True, 1), (False, 4)])
def test_special_tokens_count_where_the_text_shows_them(skips_special: bool, last: int) -> None:
    assert offsets([0, SPECIAL, 8], skips_special=skips_special) == [0, 1, last]


def test_a_prompt_shows_the_special_tokens_that_its_caller_wrote() -> None:
    # The first was put before the text, the second is written out in it.
    assert offsets([SPECIAL, 0, SPECIAL, 8], "a<s>d") == [0, 0, 1, 4]


class SpacedTokenizer(FakeTokenizer):
    """Puts a space in front of a text, as SentencePiece does."""

    strips_first_space = True

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return super().encode(" " + text, add_special_tokens)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": "ab", "echo": True}, [0, 0, 0, 1, 2, 3]),
        ({"prompt": [32, 97, 98], "echo": True}, [0, 0, 1, 2, 3]),
        ({"prompt": "ab"}, [0, 1]),
    ],
)
async def test_a_space_in_front_that_nobody_sees(body: dict[str, Any], expected: list[int]) -> None:
    engine = FakeEngine(fake_config(), tokenizer=SpacedTokenizer())
    app = create_app(engine, engine.config.server, engine.config.observe)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        asked = {"model": "fake", "logprobs": 0, "max_tokens": 2, **body}
        reply = await client.post("/v1/completions", json=asked)
    assert reply.json()["choices"][0]["logprobs"]["text_offset"] == expected


def test_a_space_that_the_caller_wrote_counts() -> None:
    tokenizer = FakeTokenizer()
    of = TextOffsets(tokenizer, skips_special=True, strips_space=True).of
    assert of([32, 97, 98], " ab") == [0, 1, 2]
    assert TextOffsets(tokenizer, skips_special=True, strips_space=True).of([32, 97, 98], "ab") == [0, 0, 1]
    assert TextOffsets(tokenizer, skips_special=True, strips_space=True).of([32, 97, 98]) == [0, 0, 1]
