"""Worker: facts after loading, memory accounting, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from octavo import LLM
from octavo.base.errors import ConfigError, DeviceOutOfMemory, ModelFileError
from octavo.messages.kv import KVKind
from tests.worker.step_driver import Driver, make_model, random_tokens

CPU = torch.device("cpu")


def test_facts(tmp_path: Path) -> None:
    path, model = make_model(tmp_path, "mistral", sliding_window=9)
    facts = Driver(path).facts
    assert [spec.kind for spec in facts.kv_layers] == [KVKind.SLIDING_WINDOW] * 3
    assert facts.kv_layers[0].window == 9
    assert facts.kv_layers[0].bytes_per_token == 2 * 2 * 24 * 4
    assert facts.vocab_size == 131
    assert facts.memory_bytes["weights"] == sum(parameter.numel() * 4 for parameter in model.parameters())
    assert facts.memory_bytes["rows"] == Driver(path).runner.rows.memory_RW.nbytes
    assert facts.available_bytes > 0
    assert facts.seconds["weights"] > 0


def test_tied_weights_are_held_once(tmp_path: Path) -> None:
    path, model = make_model(tmp_path, tie_word_embeddings=True)
    facts = Driver(path).facts
    assert facts.memory_bytes["weights"] == sum(p.numel() * 4 for p in model.parameters())


def test_f12_what_becomes_of_the_file_after_loading_changes_nothing(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    prompt = random_tokens(4)
    before, after = Driver(path), Driver(path)
    before.add(0, prompt)
    expected = before.step({0: 4})
    with (path / "model.safetensors").open("r+b") as file:
        file.write(bytes(file.seek(0, 2) and 9000))
        file.truncate(9000)
    after.add(0, prompt)
    assert after.step({0: 4}).token_ids == expected.token_ids


def test_shutdown_twice(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    driver = Driver(path)
    driver.worker.shutdown()
    driver.worker.shutdown()


def test_unknown_architecture(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["FooForCausalLM"]}))
    with pytest.raises(ModelFileError, match=r"FooForCausalLM\. It is neither .*LlamaForCausalLM, .*Mini"):
        Driver(path)


def test_a_step_without_memory_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The core preempts such a step's requests instead of failing them."""
    path, _ = make_model(tmp_path)
    driver = Driver(path)

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(driver.runner, "submit", run_out)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    driver.add(0, random_tokens(4))
    with pytest.raises(DeviceOutOfMemory, match="max_num_batched_tokens"):
        driver.step({0: 4})


def test_more_blocks_than_a_system_gives(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path, head_dim=2048)
    with pytest.raises(ConfigError, match=r"The KV cache takes [0-9.]+ GiB, which .*num_blocks"):
        LLM(str(path), num_blocks=2**26, max_model_len=64, skip_tokenizer_init=True)
