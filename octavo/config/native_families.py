"""Which architectures the native kernels of CPUs compute: all of Octavo's own."""

from __future__ import annotations

_NAMES = """
Bamba Bloom Cohere DeepseekV2 DeepseekV3 Falcon FalconH1 GPTJ GPTNeoX Gemma Gemma2 Gemma3 Glm Glm4 Glm4Moe
Glm4MoeLite GptOss Granite GraniteMoe GraniteMoeHybrid Llama Mamba2 Ministral Ministral3 Mistral Mixtral Mpt
Nemotron OPT Olmo2 Olmo3 Olmoe Phi Phi3 Qwen2 Qwen2Moe Qwen3 Qwen3Moe Qwen3Next SmolLM3 StableLm Starcoder2
"""
NATIVE = frozenset({"GPT2LMHeadModel", *(f"{name}ForCausalLM" for name in _NAMES.split())})
"""By the names of their classes. tests/conformance shows them equal to transformers."""

OVERFLOWING = ("Gemma2", "Gemma3")
"""How architectures begin whose hidden states pass float16's largest number, 65504: NaN is what comes out."""
