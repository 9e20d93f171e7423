"""Bodies of text-generation-inference's routes."""

from __future__ import annotations

from tests.fuzz.doors import door_target

PARAMETERS = {"max_new_tokens": 3, "details": True, "decoder_input_details": True, "top_n_tokens": 2,
         "seed": 1,
              "do_sample": True, "temperature": 0.5, "stop": ["z"], "return_full_text": True, "truncate": 5,
              "repetition_penalty": 1.1, "typical_p": 0.9, "watermark": False, "best_of": 1}  # fmt: skip

TARGET = door_target({
    "/generate": [
        {"inputs": "hi", "parameters": {"max_new_tokens": 3}},
        {"inputs": "hi", "parameters": PARAMETERS},
        {"inputs": "hi", "parameters": {"grammar": {"type": "regex", "value": "a+"}, "max_new_tokens": 2}},
    ],
    "/generate_stream": [{"inputs": "hi", "parameters": {"max_new_tokens": 3, "top_n_tokens": 1}}],
    "/": [{"inputs": "hi", "stream": True, "parameters": {"max_new_tokens": 2}}],
    "/embed": [{"inputs": ["a", "b"], "truncate": True}],
})  # fmt: skip
