"""Reading a stream of tokens, and a client that reads one after another while something else goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class StreamResult:
    token_ids: list[int] = field(default_factory=list)
    error: dict[str, Any] | None = None
    is_done: bool = False
    """Whether the stream said that it ended."""


def read_stream(client: httpx.Client, body: dict[str, Any]) -> StreamResult:
    """A streamed completion, to its end. Raises AssertionError if it did not begin with 200."""
    result = StreamResult()
    with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise AssertionError(f"{response.status_code} {response.read().decode()}")
        for line in response.iter_lines():
            if line == "data: [DONE]":
                result.is_done = True
            elif line:
                event = json.loads(line.removeprefix("data: "))
                result.error = event.get("error", result.error)
                for choice in event.get("choices", ()):
                    result.token_ids += choice.get("token_ids") or []
    return result


class Victim:
    """Reads streams one after another, beside whatever else happens. All must be the golden one."""

    def __init__(self, read: Callable[[], StreamResult], golden: list[int]) -> None:
        self._read = read
        self._golden = golden
        self._is_over = threading.Event()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.num_right = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Victim:
        self._thread.start()
        self._has_begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        """The stream that runs now is read to its end."""
        self._is_over.set()
        self._thread.join(120)
        if self._thread.is_alive():
            self.wrong.append("its stream never ended")

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._has_begun.set()
            try:
                result = self._read()
            except (httpx.HTTPError, AssertionError, ValueError) as error:
                self.wrong.append(f"{type(error).__name__}: {error}"[:500])
                return
            if result.is_done and result.error is None and result.token_ids == self._golden:
                self.num_right += 1
            else:
                self.wrong.append(f"{len(result.token_ids)} tokens, error {result.error}"[:500])
                return
