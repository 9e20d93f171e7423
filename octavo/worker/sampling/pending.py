"""A step's tokens while they are on their way from the device, and once the host has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from octavo.messages.result import TokenLogprobs
from octavo.ops.sampling.choose import BROKEN, EMPTY, FINE
from octavo.worker.sampling.logprobs import PendingLogprobs
from octavo.worker.upload import Download

MODEL_BROKEN = 1 + max(FINE, BROKEN, EMPTY)
"""Code of rows whose logits were unusable before anything had changed them."""

_NOT_FINITE = "The model's logits are not finite at this position (NaN, or infinite); no token can be chosen."
_NONE_LEFT = (
    "No token can be chosen: allowed_token_ids, bad_words, min_tokens or a logits processor masked every one."
)
_SPOILT = "logit_bias, a penalty or a logits processor made the logits of this position NaN or infinite."

OF_MODEL = {BROKEN: _NOT_FINITE, EMPTY: _NOT_FINITE}
"""What a code means where the logits are the model's own, of every row,"""
OF_CHANGED = {BROKEN: _SPOILT, EMPTY: _NONE_LEFT, MODEL_BROKEN: _NOT_FINITE}
"""and where they may have become anything."""
OF_WISHES = frozenset({_SPOILT, _NONE_LEFT})
"""What comes of a request's own parameters, and comes again when it is sent again."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What a step chose, on the host."""

    token_ids: list[int]
    """Parallel to the rows asked for. Rows in `failed` hold 0, which means nothing."""
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)
    """By row, where asked for."""
    failed: dict[int, str] = field(default_factory=dict)
    """By row: why no token could be chosen."""
    refused: list[int] = field(default_factory=list)
    """Rows among these whose own parameters are to blame."""


class PendingSample:
    """What a step chooses. The device has it at once, the host when it calls `finish`."""

    def __init__(
        self,
        chosen_2S: Tensor,
        rows: list[int],
        *,
        messages: Mapping[int, str] = OF_MODEL,
        processor_failures: dict[int, str] | None = None,
        logprobs: PendingLogprobs | None = None,
        logprob_places: list[int] | None = None,
    ) -> None:
        """chosen_2S: tokens and codes; messages: by code; failures of processors come by place."""
        self.token_ids = chosen_2S[0]
        """int32 [S], on the device, parallel to the rows asked for; 0 where a row failed."""
        self._chosen = Download(chosen_2S)
        self._rows = rows
        self._messages = messages
        self._processor_failures = processor_failures or {}
        self._logprobs = logprobs
        self._logprob_places = logprob_places or []

    def read_tokens(self) -> list[int]:
        """The tokens alone. On a GPU: as `finish`."""
        tokens: list[int] = self._chosen.read()[0].tolist()
        return tokens

    def finish(self) -> Sampled:
        """On a GPU: only after the event that was recorded behind this step."""
        tokens_S, codes_S = self._chosen.read()
        failed = self._failed(codes_S)
        found = [] if self._logprobs is None else self._logprobs.finish()
        return Sampled(
            token_ids=tokens_S.tolist(),
            logprobs={
                self._rows[place]: logprobs
                for place, logprobs in zip(self._logprob_places, found, strict=True)
                if place not in failed
            },
            failed={self._rows[place]: message for place, message in failed.items()},
            refused=[self._rows[place] for place, message in failed.items() if message in OF_WISHES],
        )

    def _failed(self, codes_S: Tensor) -> dict[int, str]:
        """By place. The model's own fault comes before a processor's, and that before what it left behind."""
        failed = dict(self._processor_failures)
        if bool(codes_S.any()):
            for place, code in enumerate(codes_S.tolist()):
                if code == MODEL_BROKEN or (code != FINE and place not in failed):
                    failed[place] = self._messages[code]
        return failed
