"""Finds stop strings in streamed text, across any borders, and holds back text that could begin one.

Hot path: called per output token. One automaton step per character, whatever the number of stop
strings (Aho-Corasick); nothing is scanned twice. Samples of one request share the automaton.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence


class StopAutomaton:
    """The stop strings of a request, ready to be looked for. State 0 is the beginning. Never changed.

    Nearly every state has one successor, which was made just behind it. A mapping for each state takes over
    two hundred times the memory of the strings.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string would stop everything; the validator refuses it"
        self.characters = [""]
        """What leads from each state to the next number; empty at the end of a string."""
        self.branches: dict[int, dict[str, int]] = {}
        """The other successors, of the few states that have any."""
        self.fallback = array("i", [0])
        self.depth = array("i", [0])
        """Characters that lead to each state: so many could begin a stop string."""
        self.found: list[str | None] = [None]
        for stop in stops:
            self._insert(stop)
        self._link()

    def follow(self, state: int, character: str) -> int:
        """The state after one more character of the text."""
        while True:
            if self.characters[state] == character:
                return state + 1
            branches = self.branches.get(state)
            if branches is not None and character in branches:
                return branches[character]
            if not state:
                return 0
            state = self.fallback[state]

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            if self.characters[state] == character:
                state += 1
            elif character in self.branches.get(state, ()):
                state = self.branches[state][character]
            else:
                state = self._add(state, character)
        self.found[state] = stop

    def _add(self, state: int, character: str) -> int:
        following = len(self.characters)
        if following == state + 1 and not self.characters[state]:
            self.characters[state] = character
        else:
            self.branches.setdefault(state, {})[character] = following
        self.characters.append("")
        self.fallback.append(0)
        self.depth.append(self.depth[state] + 1)
        self.found.append(None)
        return following

    def _link(self) -> None:
        """For every state, the state of its longest proper suffix; breadth first."""
        queue = deque(following for _, following in self._successors(0))
        while queue:
            state = queue.popleft()
            for character, following in self._successors(state):
                queue.append(following)
                self.fallback[following] = self.follow(self.fallback[state], character)
                if self.found[following] is None:
                    self.found[following] = self.found[self.fallback[following]]

    def _successors(self, state: int) -> list[tuple[str, int]]:
        first = self.characters[state]
        return [*([(first, state + 1)] if first else []), *self.branches.get(state, {}).items()]


class StopStrings:
    """The stop string that ends first wins; of several that end together, the longest.

    So the result depends on the text alone, never on how it was cut into pieces.
    """

    def __init__(self, automaton: StopAutomaton, include_in_output: bool) -> None:
        self._include = include_in_output
        self._automaton = automaton
        self._state = 0
        self._held = ""
        self._hit: str | None = None

    def add(self, text: str) -> tuple[str, str | None]:
        """Return (text that may be shown now, the stop string found or None)."""
        if self._hit is not None:
            return "", self._hit
        follow, found = self._automaton.follow, self._automaton.found
        buffer = self._held + text
        end, state = len(self._held), self._state
        for character in text:
            end += 1
            state = follow(state, character)
            stop = found[state]
            if stop is not None:
                self._hit = stop
                self._held = ""
                return buffer[: end if self._include else end - len(stop)], stop
        self._state = state
        certain = len(buffer) - self._automaton.depth[state]
        self._held = buffer[certain:]
        return buffer[:certain], None

    def flush(self) -> str:
        """Return the rest when the request ends for another reason; nothing after a hit."""
        rest, self._held, self._state = self._held, "", 0
        return rest
