"""Grammars in Lark and GBNF that answers have to follow."""

from __future__ import annotations

from tests.fuzz.grammar_door import grammar_target
from tests.fuzz.mutate import text_mutator

SEEDS = (
    'start: "a" b*\nb: /[0-9]+/ | "(" start ")"\n',
    'start: item ("," item)*\nitem: NAME "=" NUMBER\nNAME: /[a-z]+/\nNUMBER: /[0-9]+/\n%ignore / +/\n',
    'root ::= "yes" | "no" ws?\nws ::= [ \\t\\n]+\n',
    'root ::= expr\nexpr ::= term (("+" | "-") term)*\nterm ::= [0-9]+ | "(" expr ")"\n',
    'start: %json {"type": "integer"}\n',
    "start[lazy]: /a*b/ tail\ntail[max_tokens=5]: /.*/\n",
    '%llguidance {}\nstart: <[258]> | "x"{2,4} | TEXT\nTEXT: /(.|\\n)*/\n',
)
WORDS = (
    "start", "root", ": ", " ::= ", " | ", "(", ")", "*", "+", "?", '"a"', '"', "/[a-z]+/", "/", "[", "]",
    "{1,9}",
    "{1,100000}", "%ignore ", "%json {}", "%regex {}", "%import common.INT", "%llguidance {}", "%declare",
    "%%", "\n",
    "<[1]>", "<[0-99999]>", "<|im_end|>", "@g0", "@main", "[lazy]", "[max_tokens=1]", "[stop=\"x\"]",
    "[capture]", "r1",
    "A", "B", '"\\x00"', "//", "# c", "&", "~", "start: start\n", "a: b\nb: a\n", "(" * 300, ")" * 300, "!",
    "->", ".2",
)  # fmt: skip
TARGET = grammar_target("grammar", SEEDS, text_mutator(WORDS), is_json=False)
