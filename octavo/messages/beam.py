"""BeamSearchParams: how to search for the likeliest answers. Names are vLLM's, meanings transformers'."""

from __future__ import annotations

from typing import Literal

import msgspec

from octavo.base.errors import RequestError
from octavo.messages.checks import check_int, check_range

MAX_BEAM_WIDTH = 64
MAX_BEAM_LOGPROBS = 128


class BeamSearchParams(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How many answers to follow at a time, and which of them count as better.

    An answer of L tokens, the end of text among them, scores its log-probability / L ** length_penalty.
    early_stopping: True ends the search with beam_width complete answers, False when what is still open
    does not look as if it could beat them, "never" when it cannot. temperature is accepted for vLLM's
    sake: beams are compared by the model's own log-probabilities, so it changes nothing.
    """

    beam_width: int
    max_tokens: int | None = 16
    """None: as many as fit."""
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    include_stop_str_in_output: bool = False
    """Write the end of text in the text. Among the tokens it is always."""
    skip_special_tokens: bool = True
    n: int | None = None
    """How many of the answers AsyncLLM's outputs hold; None is all of them."""
    logprobs: int | None = None
    """How many candidates AsyncLLM's outputs show at each position."""

    def check(self) -> None:
        """Raise RequestError naming the parameter unless every value is usable."""
        check_int("beam_width", self.beam_width, 1, MAX_BEAM_WIDTH)
        check_range("temperature", self.temperature, 0.0, 100.0)
        check_range("length_penalty", self.length_penalty, -10.0, 10.0)
        if self.max_tokens is not None:
            check_int("max_tokens", self.max_tokens, 1, None)
        if self.early_stopping not in (True, False, "never"):
            raise RequestError("early_stopping must be true, false or 'never'.", param="early_stopping")
        if self.n is not None and self.n > self.beam_width:
            raise RequestError(f"n is {self.n}, more than beam_width {self.beam_width}.", param="n")
        if self.logprobs is not None:
            check_int("logprobs", self.logprobs, 0, MAX_BEAM_LOGPROBS)
