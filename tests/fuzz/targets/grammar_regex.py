"""Regular expressions that answers have to match."""

from __future__ import annotations

from tests.fuzz.grammar_door import grammar_target
from tests.fuzz.mutate import text_mutator

SEEDS = (
    "[a-z]+@[a-z]+\\.com", "(a|b)*abb", "\\d{3}-\\d{4}", "(?i)yes|no", "[^\\x00-\\x1f]{1,20}", "\\p{L}+",
    "a{2,5}b?",
    "(foo|bar)+?baz", "[\\s\\S]{0,50}", "^abc$", "\\bword\\b", "(?P<name>x)y", "é+😀", "a|", "(a+)+b",
    "(.*)*x",
)  # fmt: skip
WORDS = (
    "(", ")", "[", "]", "{", "}", "*", "+", "?", "|", ".", "^", "$", "\\d", "\\w", "\\s", "\\b", "\\p{Greek}",
    "(?:",
    "(?=", "(?!", "(?<=", "(?i)", "(?P<a>", "\\1", "{1,100000}", "{0,}", "[^", "a-z", "&&", "~",
    "\\x{10FFFF}", "\\u00e9",
    "(a+)+", "(a|a)*", "(.*)*", "[\\s\\S]{0,65535}", "(" * 200, ")" * 200,
    "\\Q", "\\E", "/", "\n", "😀", "\0",
)  # fmt: skip
TARGET = grammar_target("regex", SEEDS, text_mutator(WORDS), is_json=False)
