"""What one grammar may cost. The worker keeps the same limits as the helper that let the grammar in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance import LLParserLimits

COMPILE_CPU_S = 0.5
"""A grammar that takes longer to compile is refused: the worker compiles it again, beside running streams."""
COMPILE_WALL_S = 1.2
"""From here on a helper is killed."""
HELPER_MEMORY_BYTES = 512 * 2**20
"""What a helper may take beyond the vocabulary."""
HELPER_STACK_BYTES = 2**20
"""Less than any thread of the worker has: what fits here overflows no stack there."""
MAX_DEPTH = 64
"""Levels of a schema."""
PROBE_TOKENS = 12
"""How far a grammar is followed before it is let in."""

MAX_LEXER_STATES = 25_000
"""About a kilobyte each."""


def parser_limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=MAX_LEXER_STATES, max_items_in_row=10_000, verbose_errors=False)
