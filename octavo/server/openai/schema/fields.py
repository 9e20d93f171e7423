"""The policy for fields of a generation body that no schema models.

- Known and harmless (IGNORED): accepted, change nothing.
- Known but not available (UNSUPPORTED): refused by name, unless the value asks for nothing.
- Unknown: ignored, with one warning per name in the log (`body.py`).
Nobody's wish is dropped silently, and names of internals never reach the engine.
"""

from __future__ import annotations

from typing import Any

IGNORED = frozenset(
    {
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "include_reasoning",
        "request_id",
        "session_id",
    }
)

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    # OpenAI
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM
    "allowed_media_domains": (),
    "beam_width": (1,),
    "data_parallel_rank": (),
    "detokenize": (True,),
    "early_stopping": (False,),
    "ec_transfer_params": (),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_whitespace_pattern": (),
    "kv_transfer_params": (),
    "length_penalty": (1, 1.0),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "media_io_kwargs": (),
    "mm_processor_kwargs": (),
    "prompt_embeds": (),
    "repetition_detection": (),
    "return_hidden_states": (False,),
    "return_prompt_text": (False,),
    "return_routed_experts": (False,),
    "return_token_offsets": (False,),
    "structural_tag": (),
    "structured_outputs": (),
    "thinking_token_budget": (),
    "truncation_side": ("left",),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermarking": (False,),
}
