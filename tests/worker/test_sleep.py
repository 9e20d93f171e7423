"""Sleep gives memory back to the system, and waking up brings the same tokens."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import psutil
import pytest
import torch

from octavo import LLM, EngineError, RequestError, SamplingParams
from octavo.base.errors import DeviceOutOfMemory, ErrorCode, ModelFileError
from octavo.worker.profiler import Profiler
from tests.tiny import save_model
from tests.worker.step_driver import Driver, make_model, random_tokens

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
PROMPTS = [[7 * i % 200 for i in range(length)] for length in (3, 40, 90)]


def rss_mib() -> float:
    return psutil.Process(os.getpid()).memory_info().rss / 2**20


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cheap to run, but with 64 MiB of weights and 128 KiB of keys and values per token."""
    return save_model(
        tmp_path_factory.mktemp("wide") / "wide",
        hidden_size=64,
        intermediate_size=40_000,
        num_hidden_layers=2,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=256,
        max_position_embeddings=2048,
    )


def answers(llm: LLM) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]


def test_memory_goes_back_and_the_same_tokens_come(wide_model: Path) -> None:
    with LLM(str(wide_model), max_model_len=2048, num_blocks=200) as llm:
        before = answers(llm)
        llm.generate([[i % 200 for i in range(1500)]], GREEDY, use_tqdm=False)
        full = rss_mib()
        llm.sleep(1)
        without_cache = rss_mib()
        assert full - without_cache > 150, "1500 tokens of keys and values are 187 MiB"
        with pytest.raises(EngineError, match="sleeps") as caught:
            answers(llm)
        assert caught.value.code is ErrorCode.ASLEEP
        llm.sleep(2)
        assert without_cache - rss_mib() > 40
        llm.wake_up()
        assert answers(llm) == before
        llm.sleep(2)
        llm.sleep(1)
        llm.wake_up()
        llm.wake_up()
        assert answers(llm) == before
        assert llm.stats().num_running == llm.stats().num_waiting == 0


def test_nothing_cached_is_believed_after_waking(wide_model: Path) -> None:
    with LLM(str(wide_model), max_model_len=512, num_blocks=64) as llm:
        first = llm.generate([PROMPTS[2]], GREEDY, use_tqdm=False)[0]
        again = llm.generate([PROMPTS[2]], GREEDY, use_tqdm=False)[0]
        assert again.num_cached_tokens > 0
        llm.sleep()
        assert llm.stats().num_cached_blocks == 0
        llm.wake_up()
        last = llm.generate([PROMPTS[2]], GREEDY, use_tqdm=False)[0]
        assert last.num_cached_tokens == 0
        assert first.outputs[0].token_ids == last.outputs[0].token_ids
        with pytest.raises(RequestError, match="level"):
            llm.sleep(3)


def tokens_of(driver: Driver) -> list[int]:
    driver.add(0, list(range(1, 9)))
    return [*driver.step({0: 8}).token_ids, *driver.step({0: 1}).token_ids]


def test_a_worker_that_cannot_wake_sleeps_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = make_model(tmp_path)
    expected = tokens_of(Driver(path))
    driver = Driver(path)
    worker = driver.worker
    worker.sleep(2)
    hidden = path.with_name("hidden")
    shutil.move(path, hidden)
    with pytest.raises(ModelFileError):
        worker.wake_up()
    shutil.move(hidden, path)

    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "allocate", no_memory)
        with pytest.raises(DeviceOutOfMemory, match="wake the engine up again"):
            worker.wake_up()
    worker.wake_up()
    assert tokens_of(driver) == expected


def test_another_model_in_its_place_is_refused(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path / "one")
    driver = Driver(path)
    driver.worker.sleep(2)
    shutil.rmtree(path)
    other, _ = make_model(tmp_path / "two", num_key_value_heads=3)
    shutil.copytree(other, path)
    with pytest.raises(ModelFileError, match="another model"):
        driver.worker.wake_up()


def test_profiles_are_traces_with_the_model_s_operations(tmp_path: Path) -> None:
    path, _ = make_model(tmp_path)
    driver = Driver(path)
    profiler = Profiler()
    with pytest.raises(RequestError, match="start one first"):
        profiler.stop(str(tmp_path))
    profiler.start()
    with pytest.raises(RequestError, match="stop it first"):
        profiler.start()
    driver.add(0, random_tokens(4))
    driver.step({0: 4})
    name = profiler.stop(str(tmp_path / "traces"))
    import gzip

    trace = json.loads(gzip.decompress((tmp_path / "traces" / name).read_bytes()))
    assert any("mm" in event.get("name", "") for event in trace["traceEvents"])
