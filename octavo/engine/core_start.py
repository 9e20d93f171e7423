"""Builds an EngineCore on a loaded model: what every way of running the core begins with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from octavo.base.clock import Clock, monotonic
from octavo.base.integers import ceil_div
from octavo.config.model import ModelConfig
from octavo.config.root import EngineConfig
from octavo.core.kv.plan import plan_kv
from octavo.core.loop import EngineCore
from octavo.core.ports import Executor
from octavo.grammar.vocabulary import Words
from octavo.messages.start import CoreReady, StartCore

logger = logging.getLogger(__name__)


def import_worker() -> None:
    """Import what a worker needs, torch first of all: seconds, which may pass before the model is known."""
    import octavo.executor.inline
    import octavo.weights.checkpoint  # noqa: F401


def start_core(start: StartCore, words: Callable[[], Words] | None = None) -> tuple[EngineCore, CoreReady]:
    """Load the model in this process and give it a core.

    words: the tokenizer, if this process has one already. Else it is loaded when the first grammar comes.
    """
    began = time.monotonic()
    import_worker()
    from octavo.executor.inline import InlineExecutor
    from octavo.weights.checkpoint import open_checkpoint
    from octavo.worker.worker import Worker

    config = start.config
    import_s = time.monotonic() - began
    checkpoint = open_checkpoint(Path(start.path), config.model.load_format, config.model.hf_overrides)
    _warn_of_overrides(config.model, Path(start.path))
    worker = Worker(
        model=config.model,
        cache=config.cache,
        schedule=config.schedule,
        checkpoint=checkpoint,
        words=words or partial(_load_words, config, Path(start.path)),
    )
    core, ready = core_on(InlineExecutor(worker), config)
    ready.seconds["import torch"] = import_s
    return core, ready


def _warn_of_overrides(model: ModelConfig, path: Path) -> None:
    """Here, as it may take transformers, which imports torch."""
    from octavo.weights.checkpoint import open_checkpoint
    from octavo.weights.override_names import unknown_names

    if not model.hf_overrides:
        return
    checkpoint = open_checkpoint(path, model.load_format)
    unknown = unknown_names(checkpoint.config, model.hf_overrides)
    checkpoint.close()
    for name, nearest in unknown.items():
        hint = "" if nearest is None else f" Did you mean {nearest}?"
        logger.warning(
            "hf_overrides has %s, which configs of this model do not have: it changes nothing.%s", name, hint
        )


def _load_words(config: EngineConfig, path: Path) -> Words:
    from octavo.engine.load import load_words  # imports tokenizers, which most cores never need

    return load_words(config, path)


def core_on(
    executor: Executor, config: EngineConfig, clock: Clock = monotonic
) -> tuple[EngineCore, CoreReady]:
    """A core over any executor. `config` is resolved."""
    max_model_len, max_num_seqs = config.model.max_model_len, config.schedule.max_num_seqs
    assert max_model_len is not None and max_num_seqs is not None, "the config is resolved"
    facts = executor.start()
    began = time.monotonic()
    useful_blocks = max_num_seqs * ceil_div(max_model_len, config.cache.block_size)
    plan = plan_kv(
        facts.kv_layers,
        block_size=config.cache.block_size,
        num_blocks=config.cache.num_blocks,
        available_bytes=facts.available_bytes,
        useful_tokens=useful_blocks * config.cache.block_size,
    )
    seconds = executor.allocate(plan)
    core = EngineCore(
        schedule=config.schedule,
        cache=config.cache,
        max_model_len=max_model_len,
        plan=plan,
        executor=executor,
        clock=clock,
        depth=2 if config.schedule.async_scheduling else 1,
    )
    ready = CoreReady(
        plan=plan,
        max_request_tokens=core.max_request_tokens,
        vocab_size=facts.vocab_size,
        hidden_size=facts.hidden_size,
        memory_bytes={**facts.memory_bytes, "KV cache (reserved)": plan.num_blocks * plan.block_bytes},
        seconds={**facts.seconds, **seconds, "KV cache": time.monotonic() - began - sum(seconds.values())},
    )
    return core, ready
