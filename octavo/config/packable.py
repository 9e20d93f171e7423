"""Which architectures may keep their weights as a GGUF file packs them."""

from __future__ import annotations

_NAMES = """
Bamba Cohere DeepseekV2 DeepseekV3 Falcon FalconH1 GPTJ GPTNeoX Gemma Gemma2 Gemma3 Glm Glm4 Glm4Moe
Glm4MoeLite GptOss Granite GraniteMoe GraniteMoeHybrid Llama Ministral Ministral3 Mistral Mixtral Nemotron OPT
Olmo2 Olmo3 Olmoe Phi Phi3 Qwen2 Qwen2Moe Qwen3 Qwen3Moe SmolLM3 StableLm Starcoder2
"""
PACKED = frozenset(f"{name}ForCausalLM" for name in _NAMES.split())
"""Their linear layers stay packed; experts are made plain. tests/conformance shows them equal."""

_TORCH_ATTENTION = {"DeepseekV2", "DeepseekV3", "Gemma2", "Glm4MoeLite", "GptOss"}
ATTENDED_NATIVELY = PACKED - {f"{name}ForCausalLM" for name in _TORCH_ATTENTION}
"""The native kernels know their attention: no latent rows, no soft caps and no sinks."""
