"""prompt_embeds of a body: base64 -> safetensors -> prompts of vectors. No torch, no pickle."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import NamedTuple

from octavo.base.errors import RequestError
from octavo.engine.prepare import PLACEHOLDER
from octavo.engine.prompt_vectors import (
    check_vectors,
    needs_tokens,
    refuse_prompt_vectors,
    vectors_from_file,
)
from octavo.server.openai.schema.completion import CompletionBody
from octavo.server.render.rendered import Prompt
from octavo.server.serving import Serving

MAX_COPIED_BYTES = 64 * 2**20
"""n samples of a prompt send n copies of it to the core, which serves others meanwhile."""


class VectorFile(NamedTuple):
    """A prompt as it came."""

    base64: str


def vector_files(serving: Serving, body: CompletionBody) -> list[VectorFile]:
    """The prompts of a body that has prompt_embeds. Nothing is decoded yet."""
    if not serving.engine.config.model.enable_prompt_embeds:
        raise refuse_prompt_vectors()
    if body.prompt not in (None, "", []):
        raise RequestError("prompt and prompt_embeds are both given; give one of them.", param="prompt")
    for name in ("echo", "use_beam_search"):
        if getattr(body, name):
            raise needs_tokens(name)
    given = body.prompt_embeds
    files = [VectorFile(text) for text in ([given] if isinstance(given, str) else given)]
    if not files:
        raise RequestError("prompt_embeds is an empty list; give at least one.", param="prompt_embeds")
    return files


def vector_prompt(serving: Serving, file: VectorFile, param: str) -> Prompt:
    """Decode and check one prompt."""
    try:
        data = binascii.a2b_base64(file.base64, strict_mode=True)
    except ValueError:
        raise RequestError(
            f"{param} is not base64 (plain alphabet, padded, without line breaks).", param=param
        ) from None
    vectors = vectors_from_file(data, param)
    engine = serving.engine
    check_vectors(vectors, width=engine.ready.hidden_size, dtype=engine.config.model.dtype, param=param)
    return Prompt(token_ids=[PLACEHOLDER] * vectors.num_tokens, vectors=vectors)


def check_copies(prompts: Sequence[Prompt], n: int) -> None:
    """Bound what the samples of one body take together."""
    total = n * sum(len(prompt.vectors.data) for prompt in prompts if prompt.vectors is not None)
    if n > 1 and total > MAX_COPIED_BYTES:
        raise RequestError(
            f"{n} answers to these prompt_embeds need {total} bytes for copies of them; at most "
            f"{MAX_COPIED_BYTES}. Lower n or send float16.",
            param="n",
        )
