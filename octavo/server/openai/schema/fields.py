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
        "request_id",
        "session_id",
    }
)

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    # OpenAI
    "audio": (),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "store": (False,),
    "suffix": ("",),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM
    "allowed_media_domains": (),
    "data_parallel_rank": (),
    "ec_transfer_params": (),
    "guided_decoding_backend": ("auto", "guidance", "llguidance"),
    "kv_transfer_params": (),
    "logits_processors": ([],),
    "media_io_kwargs": (),
    "mm_processor_kwargs": (),
    "return_hidden_states": (False,),
    "return_prompt_text": (False,),
    "return_routed_experts": (False,),
    "return_token_offsets": (False,),
    "structural_tag": (),
    "vllm_xargs": ({},),
    "watermarking": (False,),
}
