"""An AsyncLLM over the fake executor: the whole engine without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octavo.config.facts import CheckpointFacts, DeviceFacts
from octavo.config.resolve import resolve
from octavo.config.root import EngineConfig
from octavo.engine.async_llm import AsyncLLM
from octavo.engine.core_start import core_on
from octavo.engine.core_thread import ThreadCore
from octavo.engine.load import Loaded
from octavo.engine.supervised_core import SupervisedCore
from octavo.executor.fake import FakeExecutor
from octavo.messages.start import StartCore
from octavo.tokens.no_tokenizer import NoTokenizer
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import Tokenizer, load_tokenizer
from tests.tiny import VOCAB_SIZE, save_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return load_tokenizer(TokenizerSource(folder=folder))


MakesEngine = Callable[..., Any]


@pytest.fixture
def make_engine(tokenizer: Tokenizer) -> MakesEngine:
    """make_engine(executor=None, **options): a started AsyncLLM. The test shuts it down.

    Where cores are started again, `executor` makes one for each, and `kind` is one that may be.
    """

    async def make(
        executor: FakeExecutor | Callable[[], FakeExecutor] | None = None,
        kind: type[ThreadCore] = ThreadCore,
        **options: Any,
    ) -> AsyncLLM:
        known = NoTokenizer(VOCAB_SIZE) if options.get("skip_tokenizer_init") else tokenizer
        wishes = EngineConfig.from_options({"max_model_len": 512, "num_blocks": 257, **options})
        facts = CheckpointFacts(
            name="fake", architecture="Fake", model_max_len=512, vocab_size=VOCAB_SIZE, stored_dtype="float32"
        )
        resolved = resolve(wishes, facts, DeviceFacts(kind="cpu", has_fast_bfloat16=False))
        loaded = Loaded(
            config=resolved.config,
            reasons=resolved.reasons,
            path=Path("fake"),
            checkpoint_name="fake",
            facts=facts,
            tokenizer=known,
            eos_token_ids=[258],
            default_sampling={},
        )
        used = executor or (lambda: FakeExecutor(vocab_size=VOCAB_SIZE))
        core = SupervisedCore(
            lambda: kind(lambda start: core_on(used() if callable(used) else used, start.config))
        )
        ready = await core.start(StartCore(config=resolved.config, path="fake"))
        return AsyncLLM(loaded, ready, core)

    return make


@pytest.fixture(scope="session")
def bare_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing but a config.json: what benchmarks with dummy weights bring."""
    folder = tmp_path_factory.mktemp("bare")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 48,
        "intermediate_size": 88,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "eos_token_id": 258,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
