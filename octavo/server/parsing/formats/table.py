"""All formats of calls by name, in the order in which a template is searched: the special ones first."""

from octavo.server.parsing.formats import gemma, harmony, json_tags, llama, named, tagged

_FAMILIES = (harmony, gemma, named, tagged, llama, json_tags)
_ALL = {entry.name: entry for family in _FAMILIES for entry in family.FORMATS}
_LAST = ("function-tag", "jamba", "granite-20b", "llama3", "hermes", "pythonic")
"""Their signs are common, so the others are asked first."""

TOOL_FORMATS = {name: _ALL[name] for name in (*(n for n in _ALL if n not in _LAST), *_LAST)}

ALIASES = {
    "qwen": "hermes",
    "qwen2_5": "hermes",
    "qwen25": "hermes",
    "qwen3": "hermes",
    "granite4": "hermes",
    "qwen3_coder": "qwen3-coder",
    "qwen3_xml": "qwen3-coder",
    "step3p5": "qwen3-coder",
    "seed_oss": "seed-oss",
    "glm45": "glm",
    "glm47": "glm",
    "minimax_m2": "minimax",
    "minimax-m2": "minimax",
    "deepseek_v3": "deepseek-v3",
    "deepseekv3": "deepseek-v3",
    "deepseek_v31": "deepseek-v3.1",
    "deepseekv31": "deepseek-v3.1",
    "deepseek_v32": "deepseek-v3.2",
    "deepseekv32": "deepseek-v3.2",
    "kimi_k2": "kimi",
    "llama3_json": "llama3",
    "llama4_json": "llama3",
    "llama4_pythonic": "llama4",
    "phi4_mini_json": "phi4",
    "phi4mini": "phi4",
    "openai": "gpt-oss",
    "gptoss": "gpt-oss",
    "harmony": "gpt-oss",
    "internlm2": "internlm",
    "hunyuan_a13b": "jamba",
    "granite-20b-fc": "granite-20b",
    "lfm": "lfm2",
}
"""Names that other servers use."""
