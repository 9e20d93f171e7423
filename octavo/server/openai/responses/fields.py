"""The policy for fields of a Responses body, where it differs from that of the other generation bodies.

Fields that another name or place stands for are refused with that name; the rest follows
`schema/fields.py`.
"""

from __future__ import annotations

from typing import Any

from octavo.server.openai.schema.fields import IGNORED, UNSUPPORTED

ELSEWHERE = {
    "max_tokens": "Here it is called max_output_tokens.",
    "max_completion_tokens": "Here it is called max_output_tokens.",
    "response_format": "Here it is text.format.",
    "reasoning_effort": "Here it is reasoning.effort.",
    "messages": "Here the conversation is input.",
    "logprobs": "Here include takes 'message.output_text.logprobs'.",
    "functions": "Here it is tools.",
    "function_call": "Here it is tool_choice.",
    "use_beam_search": "A response is a sampled answer; completions and chat completions search.",
    "echo": "A response has no place for it.",
    "prompt_logprobs": "A response has no place for them.",
    "return_token_ids": "A response has no place for them.",
    "return_tokens_as_token_ids": "A response has no place for them.",
}
"""Names of other bodies, fields only to be refused -> what to do instead."""

RESPONSES_IGNORED = IGNORED | {
    "enable_response_messages",
    "prompt_cache_retention",
}

RESPONSES_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    **UNSUPPORTED,
    "access_programs": (),
    "add_generation_prompt": (True,),
    "background_options": (),
    "context_management": ([],),
    "continue_final_message": (False,),
    "conversation": (),
    "image": (),
    "include_reasoning": (True,),
    "previous_input_messages": ([],),
    "prompt": (),
    "prompt_cache_options": ({"mode": "implicit"},),
}
