"""GPUs of this machine as NVIDIA's driver lists them, asked without torch and without taking a context."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

_MAJOR, _MINOR, _MULTIPROCESSORS = 75, 76, 16
"""CUdevice_attribute of the driver's C interface."""


@dataclass(frozen=True, kw_only=True)
class GPU:
    name: str
    memory_bytes: int
    capability: tuple[int, int]
    multiprocessors: int


@cache
def visible_gpus() -> tuple[GPU, ...]:
    """In the driver's order, CUDA_VISIBLE_DEVICES applied. Empty without a driver or a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_gpu(driver, number) for number in range(count.value))


def _gpu(driver: ctypes.CDLL, number: int) -> GPU:
    device = ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), number)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, 256, device)
    memory = ctypes.c_size_t(0)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)

    def attribute(which: int) -> int:
        value = ctypes.c_int(0)
        driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
        return value.value

    return GPU(
        name=name.value.decode(errors="replace"),
        memory_bytes=memory.value,
        capability=(attribute(_MAJOR), attribute(_MINOR)),
        multiprocessors=attribute(_MULTIPROCESSORS),
    )
