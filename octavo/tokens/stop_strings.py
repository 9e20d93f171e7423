"""Finds stop strings in streamed text, across any borders, and holds back text that could begin one.

Hot path: called per output token. One automaton step per character, whatever the number of stop
strings (Aho-Corasick); nothing is scanned twice. Samples of one request share the automaton.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopAutomaton:
    """The stop strings of a request, ready to be looked for. State 0 is the beginning. Never changed."""

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string would stop everything; the validator refuses it"
        self.next: list[dict[str, int]] = [{}]
        self.fallback = [0]
        self.depth = [0]
        """Characters that lead to each state: so many could begin a stop string."""
        self.found: list[str | None] = [None]
        for stop in stops:
            self._insert(stop)
        self._link()

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self.next[state].get(character)
            if following is None:
                following = len(self.next)
                self.next[state][character] = following
                self.next.append({})
                self.fallback.append(0)
                self.depth.append(self.depth[state] + 1)
                self.found.append(None)
            state = following
        self.found[state] = stop

    def _link(self) -> None:
        """For every state, the state of its longest proper suffix; breadth first."""
        queue = deque(self.next[0].values())
        while queue:
            state = queue.popleft()
            for character, following in self.next[state].items():
                queue.append(following)
                suffix = self.fallback[state]
                while suffix and character not in self.next[suffix]:
                    suffix = self.fallback[suffix]
                self.fallback[following] = self.next[suffix].get(character, 0)
                if self.found[following] is None:
                    self.found[following] = self.found[self.fallback[following]]


class StopStrings:
    """The stop string that ends first wins; of several that end together, the longest.

    So the result depends on the text alone, never on how it was cut into pieces.
    """

    def __init__(self, automaton: StopAutomaton, include_in_output: bool) -> None:
        self._include = include_in_output
        self._next, self._fallback = automaton.next, automaton.fallback
        self._depth, self._found = automaton.depth, automaton.found
        self._state = 0
        self._held = ""
        self._hit: str | None = None

    def add(self, text: str) -> tuple[str, str | None]:
        """Return (text that may be shown now, the stop string found or None)."""
        if self._hit is not None:
            return "", self._hit
        if len(self._next) == 1:
            return text, None
        buffer = self._held + text
        end = len(self._held)
        for character in text:
            end += 1
            state = self._step(character)
            stop = self._found[state]
            if stop is not None:
                self._hit = stop
                self._held = ""
                return buffer[: end if self._include else end - len(stop)], stop
        certain = len(buffer) - self._depth[self._state]
        self._held = buffer[certain:]
        return buffer[:certain], None

    def flush(self) -> str:
        """Return the rest when the request ends for another reason; nothing after a hit."""
        rest, self._held, self._state = self._held, "", 0
        return rest

    def _step(self, character: str) -> int:
        state = self._state
        while state and character not in self._next[state]:
            state = self._fallback[state]
        self._state = self._next[state].get(character, 0)
        return self._state
