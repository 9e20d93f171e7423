"""What fits, what shrinks and what is refused; a GPU is told by its free and total bytes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from octavo.base import cgroups
from octavo.base.errors import ConfigError
from octavo.config.cache import CacheConfig
from octavo.config.model import ModelConfig
from octavo.worker import memory

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Set 'free' and 'total' of a device that is not here."""
    sizes = {"free": 64 * GIB, "total": 80 * GIB}
    monkeypatch.setattr(memory, "free_device_bytes", lambda device: sizes["free"])
    monkeypatch.setattr(memory, "total_device_bytes", lambda device: sizes["total"])
    return sizes


class Checkpoint:
    """10 GiB as bfloat16."""

    config: dict[str, Any] = {"tie_word_embeddings": True}

    def tensor_names(self) -> list[str]:
        return ["a", "b", "lm_head.weight"]

    def shape(self, name: str) -> tuple[int, ...]:
        return {"a": (4, GIB), "b": (GIB,), "lm_head.weight": (GIB, 100)}[name]


def check(dtype: str) -> None:
    memory.check_weights_fit(Checkpoint(), ModelConfig(dtype=dtype), GPU)  # type: ignore[arg-type]


def test_half_of_the_share_on_a_cpu() -> None:
    found = memory.kv_cache_bytes(CacheConfig(memory_utilization=0.5), step_bytes=1000, device=CPU)
    assert found == pytest.approx(memory.available_bytes() * 0.25 - 1000, rel=0.3)


def test_a_cpu_takes_any_wish() -> None:
    cache = CacheConfig(kv_cache_memory_bytes=12345)
    assert memory.kv_cache_bytes(cache, step_bytes=2**60, device=CPU) == 12345
    assert memory.kv_cache_bytes(CacheConfig(), step_bytes=2**60, device=CPU) == 0


def test_a_share_of_what_is_free_on_a_gpu(gpu: dict[str, int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = memory.kv_cache_bytes(
            CacheConfig(memory_utilization=0.75), step_bytes=2 * GIB, graph_bytes=GIB, device=GPU
        )
    assert found == 45 * GIB
    [line] = [record.getMessage() for record in caplog.records]
    assert line == (
        "The KV cache may take 45.0 GiB: 64.0 GiB are free, of which a step takes 2.0 GiB and graphs 1.0 GiB."
    )


@pytest.mark.parametrize(
    "cache", [CacheConfig(memory_utilization=1.0), CacheConfig(kv_cache_memory_bytes=70 * GIB)]
)
def test_too_large_a_wish_shrinks_and_says_so(
    gpu: dict[str, int], cache: CacheConfig, caplog: pytest.LogCaptureFixture
) -> None:
    found = memory.kv_cache_bytes(cache, step_bytes=2 * GIB, device=GPU)
    assert found == 62 * GIB - memory.SLACK_BYTES
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "to the 61.5 GiB that fit" in record.getMessage()


def test_no_room_at_all(gpu: dict[str, int]) -> None:
    gpu["free"] = GIB
    assert memory.kv_cache_bytes(CacheConfig(), step_bytes=2 * GIB, device=GPU) == 0


def test_weights_that_fit(gpu: dict[str, int]) -> None:
    """The tied head is not counted."""
    gpu["free"] = 10 * GIB
    check("bfloat16")


@pytest.mark.parametrize(
    ("dtype", "free", "total", "advice"),
    [
        ("bfloat16", 9, 80, "Other programs hold the rest"),
        ("float32", 12, 12, r"As bfloat16 or float16 they take 10\.0 GiB and fit"),
        ("float32", 9, 12, "a smaller model or a larger device"),
        ("bfloat16", 9, 9, "a smaller model or a larger device"),
    ],
)
def test_weights_that_do_not_fit(gpu: dict[str, int], dtype: str, free: int, total: int, advice: str) -> None:
    gpu.update(free=free * GIB, total=total * GIB)
    size = 20 if dtype == "float32" else 10
    message = rf"take {size}\.0 GiB as {dtype}, but {free}\.0 GiB of the device's {total}\.0 GiB are free\. "
    with pytest.raises(ConfigError, match=f"{message}.*{advice}.*octavo plan"):
        check(dtype)


def test_blocks_as_counted_by_the_user(gpu: dict[str, int]) -> None:
    memory.check_cache_fits(64 * GIB, GPU)
    with pytest.raises(ConfigError, match=r"takes 65\.0 GiB, but 64\.0 GiB are free.*num_blocks"):
        memory.check_cache_fits(65 * GIB, GPU)
    memory.check_cache_fits(2**60, CPU)


def test_estimates_grow_with_the_step() -> None:
    def step(num_tokens: int, num_seqs: int) -> int:
        sizes = {"hidden_size": 100, "vocab_size": 1000, "dtype_bytes": 2}
        return memory.estimated_step_bytes(num_tokens=num_tokens, num_seqs=num_seqs, **sizes)

    assert step(10, 1) - step(9, 1) == 3200
    assert step(10, 2) - step(10, 1) == 16000


def test_the_cpu_says_what_is_free() -> None:
    assert 0 < memory.free_device_bytes(CPU) <= memory.total_device_bytes(CPU)


def test_a_container_has_less(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.available_bytes() > 1000
    monkeypatch.setattr(cgroups, "free_memory", lambda: 1000)
    assert memory.available_bytes() == 1000
