"""How models mark what they think before they answer: data, like the formats of calls."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.server.parsing import channels


@dataclass(frozen=True, kw_only=True)
class ReasoningFormat:
    """Markers around reasoning, and around the answer where there are some."""

    name: str
    models: str
    signs: tuple[tuple[str, ...], ...]
    """A chat template that holds all strings of one of these groups belongs to a model that reasons so."""
    begins: tuple[str, ...]
    ends: tuple[str, ...]
    answer_marks: tuple[str, ...] = ()
    """Stand around the answer itself; they are no text."""
    is_assumed: bool = False
    """The model reasons from its first token on, unless the prompt has closed it already."""

    begins_anywhere: bool = False
    """The opening marker is no text that an answer would quote, so it counts behind text too."""
    headers: tuple[str, ...] = ()
    """Other markers of messages that are read for it."""

    @property
    def literals(self) -> tuple[str, ...]:
        return (*self.begins, *self.ends, *self.answer_marks, *self.headers)


THINK = ReasoningFormat(
    name="think",
    models="Qwen 3, QwQ, DeepSeek, GLM, Kimi, MiniMax, Granite 4 and most others",
    signs=(("<think>", "</think>"), ("</think>",), ("<think>",)),
    begins=("<think>",),
    ends=("</think>",),
)

DEEPSEEK_R1 = ReasoningFormat(
    name="deepseek-r1",
    models="DeepSeek R1 and others that never write the opening <think>",
    signs=(),
    begins=("<think>",),
    ends=("</think>",),
    is_assumed=True,
)

GRANITE_THINK = ReasoningFormat(
    name="granite-think",
    models="Granite 3.3",
    signs=(("<think>", "<response>", "<|start_of_role|>"),),
    begins=("<think>",),
    ends=("</think>",),
    answer_marks=("<response>", "</response>"),
)

GRANITE = ReasoningFormat(
    name="granite",
    models="Granite 3.2",
    signs=(("Here is my thought process",), ("Here's my thought process",)),
    begins=("Here is my thought process:", "Here's my thought process:"),
    ends=("Here is my response:", "Here's my response:"),
)

SEED_OSS = ReasoningFormat(
    name="seed-oss",
    models="Seed-OSS",
    signs=(("<seed:think>",), ("seed:think",)),
    begins=("<seed:think>",),
    ends=("</seed:think>",),
)

MAGISTRAL = ReasoningFormat(
    name="magistral",
    models="Magistral and newer Mistral models that reason",
    signs=(("[THINK]",),),
    begins=("[THINK]",),
    ends=("[/THINK]",),
    begins_anywhere=True,
)

GEMMA4 = ReasoningFormat(
    name="gemma4",
    models="Gemma 4",
    signs=(("<|channel>", "<channel|>"), ("<|channel>thought",)),
    begins=("<|channel>thought",),
    ends=("<channel|>",),
    begins_anywhere=True,
)

COHERE = ReasoningFormat(
    name="cohere",
    models="Command A Reasoning, Command R7B",
    signs=(("<|START_THINKING|>",),),
    begins=("<|START_THINKING|>",),
    ends=("<|END_THINKING|>",),
    begins_anywhere=True,
    answer_marks=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
)

HARMONY = ReasoningFormat(
    name="gpt-oss",
    models="gpt-oss",
    signs=(("<|channel|>", "<|message|>"),),
    # The channel's header, read by its own body, opens and closes it.
    begins=(),
    ends=channels.ENDS,
    headers=channels.LITERALS,
)

REASONING_FORMATS = {
    entry.name: entry
    for entry in (HARMONY, GRANITE_THINK, SEED_OSS, MAGISTRAL, GEMMA4, COHERE, GRANITE, THINK, DEEPSEEK_R1)
}
"""In the order in which a template is searched: the special ones first."""

REASONING_ALIASES = {
    "qwen3": "think",
    "glm45": "think",
    "deepseek_r1": "deepseek-r1",
    "deepseek_v3": "think",
    "kimi_k2": "think",
    "minimax_m2": "think",
    "olmo3": "deepseek-r1",
    "step3": "deepseek-r1",
    "seed_oss": "seed-oss",
    "mistral": "magistral",
    "openai_gptoss": "gpt-oss",
    "openai": "gpt-oss",
    "harmony": "gpt-oss",
    "command": "cohere",
}
"""Names that other servers use."""


def starts_in_reasoning(reasoning: ReasoningFormat, prompt_end: str) -> bool:
    """Whether an answer begins inside reasoning, from the end of its prompt as the template wrote it."""
    end = prompt_end.rstrip()
    if any(end.endswith(mark) for mark in reasoning.begins):
        return True
    return reasoning.is_assumed and not any(end.endswith(mark) for mark in reasoning.ends)


def is_left_open(reasoning: ReasoningFormat, text: str) -> bool:
    """Whether reasoning has begun in `text`, a piece of an answer, and not ended there."""
    begun = max((text.rfind(mark) for mark in reasoning.begins), default=-1)
    return begun >= 0 and begun > max((text.rfind(mark) for mark in reasoning.ends), default=-1)
