"""From options to what the engine's front needs, without torch: files, tokenizer, resolved config."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ConfigError, ModelFileError
from octavo.config.decisions.known import Reason
from octavo.config.facts import CheckpointFacts, local_device
from octavo.config.resolve import resolve
from octavo.config.root import EngineConfig
from octavo.grammar.vocabulary import Words
from octavo.tokens.no_tokenizer import NoTokenizer
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import Tokenizer, load_tokenizer
from octavo.weights.checkpoint import Checkpoint, checkpoint_facts, open_checkpoint
from octavo.weights.sources.find import find_model

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Fields of a checkpoint's generation config that become defaults of requests."""

OnProgress = Callable[[str], None]


@dataclass(kw_only=True)
class Loaded:
    """What `load_front` found."""

    config: EngineConfig
    """Resolved: no None and no 'auto' where the engine needs a value."""
    reasons: list[Reason]
    path: Path
    checkpoint_name: str
    facts: CheckpointFacts
    tokenizer: Tokenizer
    eos_token_ids: list[int]
    default_sampling: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)


def load_front(wishes: EngineConfig, on_progress: OnProgress | None = None) -> Loaded:
    """Find the model, open its files, build the tokenizer and resolve the config."""
    say = on_progress or (lambda _: None)
    seconds: dict[str, float] = {}
    model = wishes.model
    with _timed(seconds, "find model"):
        say(f"Finding {model.model}")
        path = find_model(
            model.model,
            revision=model.revision,
            download_dir=Path(model.download_dir).expanduser() if model.download_dir else None,
        )
    with _timed(seconds, "open checkpoint"):
        say(f"Opening {path.name}")
        checkpoint = open_checkpoint(path, model.load_format, model.hf_overrides)
    with _timed(seconds, "tokenizer"):
        tokenizer = _tokenizer(wishes, checkpoint)
    facts = checkpoint_facts(checkpoint, wishes.model)
    _check_vocabulary(tokenizer, facts)
    resolved = resolve(wishes, facts, local_device())
    loaded = Loaded(
        config=resolved.config,
        reasons=resolved.reasons,
        path=path,
        checkpoint_name=checkpoint.name,
        facts=facts,
        tokenizer=tokenizer,
        eos_token_ids=_eos_token_ids(checkpoint, tokenizer),
        default_sampling=_default_sampling(wishes, checkpoint),
        seconds=seconds,
    )
    checkpoint.close()
    return loaded


def _tokenizer(wishes: EngineConfig, checkpoint: Checkpoint) -> Tokenizer:
    if wishes.model.skip_tokenizer_init:
        return NoTokenizer(checkpoint_facts(checkpoint, wishes.model).vocab_size)
    template = _chat_template(wishes.model.chat_template)
    if wishes.model.tokenizer is None:
        return load_tokenizer(checkpoint.tokenizer_source(), chat_template=template)
    source = open_tokenizer_source(wishes.model.tokenizer)
    return load_tokenizer(source, chat_template=template)


def _check_vocabulary(tokenizer: Tokenizer, facts: CheckpointFacts) -> None:
    """Raise ModelFileError if text could become ids that the embedding has no rows for.

    Added tokens may lie beyond it: Gemma 3's small models have one for pictures, which they do not take.
    Prompts that hold them are refused one by one.
    """
    if tokenizer.vocab_size > facts.vocab_size < tokenizer.num_plain_tokens:
        raise ModelFileError(
            f"The tokenizer has {tokenizer.num_plain_tokens} tokens, but the embedding of {facts.name!r} has "
            f"{facts.vocab_size} rows: they do not belong together. Name the model's own tokenizer with "
            "tokenizer, or set skip_tokenizer_init and send token ids."
        )


def load_words(config: EngineConfig, path: Path) -> Words:
    """The tokenizer alone, where the front is another process."""
    checkpoint = open_checkpoint(path, config.model.load_format, config.model.hf_overrides)
    try:
        tokenizer = _tokenizer(config, checkpoint)
        return Words(tokenizer=tokenizer, eos_token_ids=_eos_token_ids(checkpoint, tokenizer))
    finally:
        checkpoint.close()


def open_tokenizer_source(tokenizer: str) -> TokenizerSource:
    """Tokenizer files of another model or folder."""
    folder = Path(tokenizer).expanduser()
    if folder.is_dir():
        return TokenizerSource(folder=folder)
    return open_checkpoint(find_model(tokenizer)).tokenizer_source()


def _chat_template(wish: str | None) -> str | None:
    """The template itself, or the content of the file it names."""
    if wish is None or "{" in wish or "\n" in wish:
        return wish
    path = Path(wish).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"chat_template {wish!r} is neither a file nor a Jinja template.", param="chat_template"
        )
    return path.read_text(encoding="utf-8")


def _eos_token_ids(checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[int]:
    """Every token that ends a text: of the tokenizer, the config and the generation config."""
    ids = list(tokenizer.eos_token_ids)
    for source in (checkpoint.config, checkpoint.generation_config):
        found = source.get("eos_token_id")
        ids.extend([found] if isinstance(found, int) else found or [])
    vocab_size = checkpoint.config.get("vocab_size", 0)
    wrong = [token for token in ids if not isinstance(token, int) or not 0 <= token < vocab_size]
    if wrong:
        raise ModelFileError(
            f"{checkpoint.name}: end-of-text token {wrong[0]!r} is outside the vocabulary of {vocab_size}."
        )
    return sorted(set(ids))


def _default_sampling(wishes: EngineConfig, checkpoint: Checkpoint) -> dict[str, Any]:
    if wishes.model.generation_config != "auto":
        return {}
    generation = checkpoint.generation_config
    values = {name: generation[name] for name in SAMPLING_DEFAULTS if generation.get(name) is not None}
    if generation.get("do_sample") is False:
        # The checkpoint asks for greedy decoding; sampling values beside it mean nothing.
        return {}
    return values


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
