"""How requests go on in another core, after the one that they ran in is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from octavo.base.errors import EngineError, ErrorCode
from octavo.engine.open_stream import OpenStream
from octavo.messages.request import EngineRequest

MAX_LOSSES = 2
"""Cores that a request may lose among others. What it loses then it loses alone, and is to blame for."""
CLEARED_TOKENS = 8
"""Who gets so many tokens further than at the last loss did not cause it."""


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


class Resumption:
    """Sends a new core what was open. Those that lost too many cores go one by one, behind all others.

    So a request that kills every core it runs in is alone with its like when the last one goes, and
    does not take those down that happened to be there each time.
    """

    def __init__(self, send: Callable[[EngineRequest], None]) -> None:
        self._send = send
        self._held: deque[OpenStream] = deque()
        self._tried: OpenStream | None = None
        self._tokens_to_clear = 0

    @property
    def is_careful(self) -> bool:
        """Somebody is tried alone: tell of progress."""
        return self._tried is not None

    def is_held(self, stream: OpenStream) -> bool:
        """The core knows nothing of it yet."""
        return stream in self._held

    def count_losses(self, streams: Iterable[OpenStream]) -> None:
        """A core is gone: who saw too many go fails, with an error that may be tried again.

        While somebody is tried alone, nobody else is counted.
        """
        for stream in streams if self._tried is None else [self._tried]:
            stream.num_losses += 1
            if stream.num_losses > MAX_LOSSES:
                stream.fail(
                    EngineError(
                        f"The engine broke down {stream.num_losses} times while it worked on this request. "
                        "Send the request again.",
                        code=ErrorCode.ENGINE_RESTARTED,
                    )
                )

    def resume(self, streams: Iterable[OpenStream]) -> None:
        """Send them, in their order. Nothing is in the core yet."""
        self._held.clear()
        for stream in streams:
            if stream.num_losses < MAX_LOSSES:
                self._send_open(stream)
            elif stream.num_losses == MAX_LOSSES:
                self._held.append(stream)
        self._try_next()

    def note_progress(self) -> None:
        """Tokens came, or a request is over."""
        tried = self._tried
        if tried is not None and (_is_over(tried) or _num_tokens(tried) >= self._tokens_to_clear):
            tried.num_losses = 0
            self._try_next()

    def forget(self, stream: OpenStream) -> None:
        """Its caller is gone."""
        if stream is self._tried:
            self._try_next()
        elif stream in self._held:
            self._held.remove(stream)

    def _try_next(self) -> None:
        self._tried = self._held.popleft() if self._held else None
        if self._tried is not None:
            self._tokens_to_clear = _num_tokens(self._tried) + CLEARED_TOKENS
            self._send_open(self._tried)

    def _send_open(self, stream: OpenStream) -> None:
        state = stream.state
        for index, sample in enumerate(state.prepared.samples):
            if not state.has_ended(index):
                self._send(resumed(sample, state.output_token_ids(index)))


def _is_over(stream: OpenStream) -> bool:
    state = stream.state
    return all(state.has_ended(index) for index in range(len(state.prepared.samples)))


def _num_tokens(stream: OpenStream) -> int:
    state = stream.state
    return sum(len(state.output_token_ids(index)) for index in range(len(state.prepared.samples)))
