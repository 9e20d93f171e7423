"""Tokenizer: text to ids and back, and chats to prompts. One object for every source of a tokenizer.

Thread-safe; may be slow on long text, so callers bound the text first (`max_chars_for`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer

from octavo.base.errors import ModelFileError, RequestError
from octavo.tokens.chat_template import (
    ChatOptions,
    TemplateRun,
    check_templates,
    checked,
    choose_template,
    read_template,
    render,
)
from octavo.tokens.forgery import Guard, SpecialTokens
from octavo.tokens.library_errors import as_file_errors, as_request_errors
from octavo.tokens.parts import TokenizerParts
from octavo.tokens.pieces import Pieces
from octavo.tokens.source import TokenizerSource
from octavo.tokens.token_bytes import spelling_of

MAX_DECODE_ID = 2**32
MAX_SHOWN_SETS = 32
TRIAL = "a Trial: 1 é 日 \n\x00"
"""Encoded once at load: some vocabularies have no token for what they do not know, and find out late."""


@dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """A rendered chat, as text and as ids."""

    text: str
    token_ids: list[int]


def load_tokenizer(source: TokenizerSource, chat_template: str | None = None) -> Tokenizer:
    """Build the tokenizer of a checkpoint. Raises ModelFileError.

    chat_template: a Jinja template, or a file that holds one, instead of the checkpoint's own.
    """
    with as_file_errors():
        parts = _build(source)
    templates = parts.chat_templates
    if chat_template is not None:
        templates = {"default": read_template(chat_template)}
    check_templates(templates)
    with as_file_errors():
        tokenizer = Tokenizer(parts, templates)
        tokenizer.backend.encode(TRIAL)
    return tokenizer


def _build(source: TokenizerSource) -> TokenizerParts:
    if source.folder is not None:
        from octavo.tokens.from_files import build_from_files

        return build_from_files(source.folder)
    if source.gguf_metadata is not None:
        from octavo.tokens.from_gguf import build_from_gguf

        return build_from_gguf(source.gguf_metadata)
    raise ModelFileError("The checkpoint brings no tokenizer. Give a folder or repository as --tokenizer.")


class Tokenizer:
    """What the engine and the server know of a vocabulary."""

    def __init__(self, parts: TokenizerParts, chat_templates: Mapping[str, str]) -> None:
        self.backend: BackendTokenizer = parts.tokenizer
        self.vocab_size = parts.vocab_size
        self.bos_token_id = parts.bos_token_id
        self.eos_token_ids = list(parts.eos_token_ids)
        self.special_tokens = dict(parts.special_tokens)
        self._templates = dict(chat_templates)
        added = self.backend.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._spelling, self.strips_first_space = spelling_of(self.backend)
        self._bytes: dict[int, bytes] = {}
        self._all_pieces = Pieces(self.token_bytes, hides=None)
        self._shown_pieces = Pieces(self.token_bytes, hides=self.is_special)
        self._pieces_showing: dict[frozenset[int], Pieces] = {}
        self._special = SpecialTokens(self.backend)
        self._response_template = parts.response_template

    @property
    def num_plain_tokens(self) -> int:
        """One more than the highest id of a token that was not added to the vocabulary later."""
        ids = self.backend.get_vocab(with_added_tokens=True).values()
        return 1 + max((token_id for token_id in ids if token_id not in self._added), default=-1)

    @property
    def chat_template(self) -> str | None:
        """The usual chat template, None when the model has none."""
        return self._templates.get("default")

    @property
    def response_template(self) -> dict[str, Any] | None:
        """What the checkpoint says about how its answers are written."""
        return self._response_template

    def template_for(self, wish: str | None, has_tools: bool) -> str | None:
        """The chat template that a chat would be rendered with, None if there is none."""
        if wish is not None:
            return self._templates.get(wish, wish)
        if has_tools and "tool_use" in self._templates:
            return self._templates["tool_use"]
        return self.chat_template

    def special_ids_in(self, texts: Sequence[str]) -> list[int]:
        """Special tokens that are written out in one of `texts`."""
        joined = "\n".join(texts)
        return [token_id for content, token_id in self._special.ids.items() if content in joined]

    @property
    def has_text(self) -> bool:
        """Whether ids can become text at all (see `NoTokenizer`)."""
        return True

    @property
    def has_token_bytes(self) -> bool:
        """Whether text is the plain concatenation of `token_bytes`."""
        return self._spelling is not None

    def pieces(self, skip_special_tokens: bool, shown: frozenset[int] = frozenset()) -> Pieces:
        """What each token adds to a text; only where `has_token_bytes`.

        shown: special tokens that are not skipped. There are few such sets: one for each format of answers.
        """
        if not skip_special_tokens:
            return self._all_pieces
        if not shown:
            return self._shown_pieces
        pieces = self._pieces_showing.get(shown)
        if pieces is None:
            if len(self._pieces_showing) == MAX_SHOWN_SETS:
                self._pieces_showing.clear()
            pieces = self._pieces_showing[shown] = Pieces(
                self.token_bytes, hides=lambda token_id: self.is_special(token_id) and token_id not in shown
            )
        return pieces

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return ids. Special tokens written out in `text` count as such; see `encode_plain`."""
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        with as_request_errors():
            encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    def encode_plain(self, text: str) -> list[int]:
        """Return ids of `text` as ordinary text: a special token written out in it is spelled, not obeyed."""
        return self._special.encode_plain(text, follows_special=False)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return text. Ids outside the vocabulary have none."""
        if any(not 0 <= token_id < MAX_DECODE_ID for token_id in ids):
            raise RequestError(f"Token ids go from 0 to {self.vocab_size - 1}.", param="tokens")
        with as_request_errors():
            return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes a token adds to a text; none for ids outside the vocabulary."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._spell(token_id)
        return known

    def _spell(self, token_id: int) -> bytes:
        token = self.backend.id_to_token(token_id) if 0 <= token_id < MAX_DECODE_ID else None
        if token is None:
            return b""
        if self._spelling is not None:
            return self._spelling(token)
        if token_id not in self._added and token.startswith("##"):
            token = token[2:]
        return token.encode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        r"""Return a token as log-probabilities show it; part of a character looks like `bytes:\xe2\x96`."""
        data = self.token_bytes(token_id)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special_ids

    def max_chars_for(self, max_tokens: int) -> int:
        """Return a length such that longer text surely has more than `max_tokens` tokens (or is padding).

        Costs nothing, so that absurd text is refused without tokenizing it.
        """
        return self._special.longest_token_chars * max(max_tokens, 1)

    def encode_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        run: TemplateRun | None = None,
    ) -> list[int]:
        """Return the prompt's ids. The template writes the bos token, so none is added."""
        options = ChatOptions(
            messages=messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            chat_template=chat_template,
            template_kwargs=template_kwargs or {},
            run=run,
        )
        return self.prepare_chat(options).token_ids

    def prepare_chat(self, options: ChatOptions, *, trust_content: bool = False) -> ChatPrompt:
        """Render once and return text and ids.

        trust_content: obey special tokens written out in messages, tools and documents. Otherwise they
        are text, so that nobody can forge the end of a message or another role.
        """
        options = checked(options)
        guard = None if trust_content else self._special.guard(options.user_values())
        text = self._render(options, guard)
        if guard is None:
            return ChatPrompt(text=text, token_ids=self.encode(text, add_special_tokens=False))
        token_ids: list[int] = []
        for piece in guard.pieces(text):
            if piece.is_plain:
                token_ids += self._special.encode_plain(piece.text, follows_special=piece.follows_special)
            else:
                token_ids += self.encode(piece.text, add_special_tokens=False)
        return ChatPrompt(text=guard.restore(text), token_ids=token_ids)

    def _render(self, options: ChatOptions, guard: Guard | None) -> str:
        template = choose_template(self._templates, options)
        return render(template, options, self.special_tokens, guard)
