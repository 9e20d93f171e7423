"""Text while it arrives: equal to decoding everything at once, never half a character."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import as_tokenizer, byte_level_backend, sentencepiece_backend, word_piece_backend

from octavo.tokens.detokenizer import Detokenizer
from octavo.tokens.tokenizer import Tokenizer

BYTE_LEVEL = as_tokenizer(byte_level_backend())
SENTENCEPIECE = as_tokenizer(sentencepiece_backend())
WORD_PIECE = as_tokenizer(word_piece_backend())
CHUNKS = st.lists(st.integers(1, 5), max_size=60)


def stream(
    tokenizer: Tokenizer, prompt: list[int], ids: list[int], sizes: list[int], **options: bool
) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt, **options)
    shown, start = [], 0
    for size in [*sizes, *[1] * len(ids)]:
        if start >= len(ids):
            break
        shown.append(detokenizer.add(ids[start : start + size]))
        start += size
    return [*shown, detokenizer.flush()]


@given(st.lists(st.integers(0, BYTE_LEVEL.vocab_size + 3), max_size=40), CHUNKS, st.booleans())
def test_byte_level_equals_decoding_at_once(ids: list[int], sizes: list[int], skip: bool) -> None:
    shown = stream(BYTE_LEVEL, [], ids, sizes, skip_special_tokens=skip)
    assert "".join(shown) == BYTE_LEVEL.decode(ids, skip_special_tokens=skip)


@given(st.text(max_size=30), CHUNKS)
def test_no_half_characters_on_the_way(text: str, sizes: list[int]) -> None:
    for tokenizer in (BYTE_LEVEL, SENTENCEPIECE):
        ids = tokenizer.encode(text, add_special_tokens=False)
        whole = tokenizer.decode(ids, skip_special_tokens=False)
        shown = stream(tokenizer, [], ids, sizes, skip_special_tokens=False)
        assert "".join(shown) == whole
        if "\ufffd" not in text:
            assert all("\ufffd" not in part for part in shown)


@given(st.lists(st.integers(0, SENTENCEPIECE.vocab_size - 1).filter(lambda i: not 3 <= i < 259), max_size=30))
def test_sentencepiece_without_bytes_equals_decoding_at_once(ids: list[int]) -> None:
    assert "".join(stream(SENTENCEPIECE, [], ids, [])) == SENTENCEPIECE.decode(ids)


@given(st.text(alphabet="abc the fox日😀", min_size=1, max_size=20), st.integers(1, 10))
def test_an_answer_joins_its_prompt(text: str, cut: int) -> None:
    for tokenizer in (BYTE_LEVEL, SENTENCEPIECE):
        ids = tokenizer.encode("say " + text, add_special_tokens=False)
        cut = min(cut, len(ids))
        whole = tokenizer.decode(ids, skip_special_tokens=False)
        data = b"".join(map(tokenizer.token_bytes, ids[:cut]))
        prompt = data.decode("utf-8", "ignore").removeprefix(" ")
        answer = "".join(stream(tokenizer, ids[:cut], ids[cut:], []))
        if cut < len(ids):
            assert prompt + answer == whole


@given(st.lists(st.integers(4, WORD_PIECE.vocab_size - 1), max_size=30), CHUNKS)
def test_word_piece_is_decoded_in_a_window(ids: list[int], sizes: list[int]) -> None:
    assert not WORD_PIECE.has_token_bytes
    assert "".join(stream(WORD_PIECE, [], ids, sizes)) == WORD_PIECE.decode(ids)


def test_a_first_space_is_dropped_only_at_the_start_of_a_text() -> None:
    ids = SENTENCEPIECE.encode("the fox", add_special_tokens=False)
    bos = SENTENCEPIECE.backend.token_to_id("<s>")
    assert "".join(stream(SENTENCEPIECE, [bos], ids, [])) == "the fox"
    assert "".join(stream(SENTENCEPIECE, ids, ids, [])) == " the fox"


def test_an_unfinished_character_shows_at_the_end_only() -> None:
    ids = BYTE_LEVEL.encode("\U0001f9ff")
    detokenizer = Detokenizer(BYTE_LEVEL, [])
    assert detokenizer.add(ids[:-1]) == ""
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


@settings(deadline=None, max_examples=1)
@given(st.just(None))
def test_work_per_token_does_not_grow(_: None) -> None:
    """Skipped special tokens and broken bytes must not be decoded again and again."""
    calls = 0
    real = WORD_PIECE.decode

    def counting(ids: list[int], skip_special_tokens: bool = True) -> str:
        nonlocal calls
        calls += len(ids)
        return real(ids, skip_special_tokens)

    WORD_PIECE.decode = counting  # type: ignore[method-assign]
    try:
        stream(WORD_PIECE, [], [2] * 2000 + [4] * 2000, [])
    finally:
        del WORD_PIECE.decode  # type: ignore[method-assign]
    assert calls < 4000 * 70
