"""How a request goes on in another core, after the one that it ran in is gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from octavo.base.errors import EngineError, ErrorCode
from octavo.engine.open_stream import OpenStream
from octavo.messages.request import EngineRequest

MAX_LOSSES = 2
"""Cores that one request may lose. If it is to blame itself, it must not take all others with it."""


def resumed(request: EngineRequest, output_token_ids: Sequence[int]) -> EngineRequest:
    """The same sample, continued behind what the caller was told already.

    Key and positions are the same, so it draws the same numbers; forms, penalties and budgets are
    rebuilt from the tokens, as for a request that was preempted.
    """
    if not output_token_ids:
        return request
    params = request.params
    if params.prompt_logprobs is not None:  # They came with the first token.
        params = msgspec.structs.replace(params, prompt_logprobs=None)
    return msgspec.structs.replace(request, params=params, output_token_ids=list(output_token_ids))


def open_samples(stream: OpenStream) -> Iterator[EngineRequest]:
    """What a new core has to be sent of this request."""
    state = stream.state
    for index, sample in enumerate(state.prepared.samples):
        if not state.has_ended(index):
            yield resumed(sample, state.output_token_ids(index))


def count_losses(streams: Iterable[OpenStream]) -> None:
    """A core is gone: who has seen too many go fails, with an error that may be tried again."""
    for stream in streams:
        stream.num_losses += 1
        if stream.num_losses > MAX_LOSSES:
            stream.fail(
                EngineError(
                    f"The engine was restarted {stream.num_losses} times while it worked on this request. "
                    "Send the request again.",
                    code=ErrorCode.ENGINE_RESTARTED,
                )
            )
