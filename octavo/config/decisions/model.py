"""The model: its name, what it is for, who computes it and how long a text may be."""

from __future__ import annotations

from octavo.base.errors import ConfigError
from octavo.config.decisions.known import Known, Reason, decided
from octavo.config.root import EngineConfig

MODEL_IMPLS = {"vllm": "octavo"}


def decide_names(config: EngineConfig, known: Known) -> EngineConfig:
    if config.model.trust_remote_code:
        raise ConfigError(
            "trust_remote_code is not available: Octavo never runs code from a checkpoint. Leave it off; "
            "`octavo explain MODEL` says whether the model runs without it.",
            param="trust_remote_code",
        )
    if config.model.skip_tokenizer_init:
        _check_without_tokenizer(config)
    if config.model.served_model_name:
        return config
    wish = config.model.model
    if wish.startswith((".", "/", "~", "pypi:")) or wish.endswith(".gguf"):
        name, why = known.checkpoint.name, "the checkpoint's own name"
    else:
        name, why = wish, "as the model was asked for"
    return decided(config, "model", known, served_model_name=([name], why))


def _check_without_tokenizer(config: EngineConfig) -> None:
    if config.model.tokenizer is not None:
        raise ConfigError(
            f"tokenizer is {config.model.tokenizer!r}, but skip_tokenizer_init loads none. Leave one of them "
            "out.",
            param="tokenizer",
        )
    if config.model.chat_template is not None:
        raise ConfigError(
            "chat_template is given, but skip_tokenizer_init loads no tokenizer: what it writes could not "
            "become tokens. Leave one of them out.",
            param="chat_template",
        )


def decide_runner(config: EngineConfig, known: Known) -> EngineConfig:
    checkpoint = known.checkpoint
    if config.model.runner == "generate" and not checkpoint.can_write:
        raise ConfigError(
            f"runner is generate, but {checkpoint.architecture} does not write. Leave runner out.",
            param="runner",
        )
    if config.model.runner != "auto":
        return config
    if checkpoint.pooling is None:
        return decided(config, "model", known, runner=("generate", "the model predicts tokens"))
    made = {"embed": "embed texts", "classify": "score labels"}[checkpoint.pooling.task]
    return decided(config, "model", known, runner=("pooling", f"the model was made to {made}"))


def decide_pooling(config: EngineConfig, known: Known) -> EngineConfig:
    """What follows for a model that answers with numbers."""
    facts = known.checkpoint.pooling
    if config.model.runner != "pooling" or facts is None:
        if config.model.pooling_type is not None:
            raise ConfigError(
                f"pooling_type is {config.model.pooling_type}, but this model writes and pools nothing. "
                "Leave it out, or set runner to pooling.",
                param="pooling_type",
            )
        return config
    known.reasons.append(Reason("task", facts.task, "what the model's files say"))
    if facts.can_embed:
        config = decided(config, "model", known, pooling_type=(str(facts.pooling), facts.why_pooling))
    if facts.is_encoder:
        whole = "every token of an encoder sees all others, so a text is computed in one step"
        config = decided(config, "schedule", known, enable_chunked_prefill=(False, whole))
    return config


def decide_implementation(config: EngineConfig, known: Known) -> EngineConfig:
    wish = config.model.model_impl
    if wish in MODEL_IMPLS:
        return decided(config, "model", known, model_impl=(MODEL_IMPLS[wish], f"what {wish} means here"))
    facts = known.checkpoint.pooling
    if wish == "transformers" and facts is not None and (facts.is_encoder or not facts.can_embed):
        raise ConfigError(
            "model_impl is transformers, but encoders and models that score are Octavo's own. Leave it out.",
            param="model_impl",
        )
    return config


def decide_lengths(config: EngineConfig, known: Known) -> EngineConfig:
    if config.model.max_logprobs < 0:
        raise ConfigError(
            f"max_logprobs is {config.model.max_logprobs}; at least 0. The size of the vocabulary, "
            f"{known.checkpoint.vocab_size}, allows all.",
            param="max_logprobs",
        )
    limit, why = known.checkpoint.model_max_len, "what the model was made for"
    facts = known.checkpoint.pooling
    wish = config.model.max_model_len
    if wish is None:
        trained = None if facts is None else facts.max_tokens
        if config.model.runner == "pooling" and trained is not None and trained < limit:
            limit, why = trained, "max_seq_length of sentence_bert_config.json"
        return decided(config, "model", known, max_model_len=(limit, why))
    if not 1 < wish <= limit:
        raise ConfigError(f"max_model_len is {wish}; this model allows 2 to {limit}.", param="max_model_len")
    return config
