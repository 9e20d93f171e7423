"""Facts about the machine and its software, read without disturbing a measurement."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "transformers", "numpy")
GPU_FREE_MIB = 2000
"""Memory in use below which the card counts as free: contexts and other small change."""


def session_name() -> str:
    """Names this machine since it was started, and its card: numbers under one name may be compared."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return hashlib.sha256("/".join([boot, *_nvidia_smi("uuid")]).encode()).hexdigest()[:12]


def seconds_since_process_start() -> float:
    """Wall time since this process was started, imports and the interpreter's own start included."""
    started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def machine_facts() -> dict[str, Any]:
    gpu = _nvidia_smi("name,memory.total,driver_version")
    return {
        "gpu": gpu[0] if gpu else None,
        "gpu_memory": gpu[1] if gpu else None,
        "driver": gpu[2] if gpu else None,
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
    }


def software_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}}


def package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def commit() -> str | None:
    """The checked-out commit, '+changes' if files differ from it; None outside a repository."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+changes" if status.stdout else "")


def wait_for_free_gpu(timeout_s: float = 20) -> bool:
    """Give the last process's memory time to come back. True if the card is free, or there is none."""
    deadline = time.monotonic() + timeout_s
    while True:
        used = _nvidia_smi("memory.used")
        if not used or float(used[0]) < GPU_FREE_MIB:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)


def are_empty(folders: list[Path]) -> bool:
    """No file in any of them: nothing compiled earlier can be found."""
    return not any(path.is_file() for folder in folders if folder.is_dir() for path in folder.rglob("*"))


def _nvidia_smi(query: str) -> list[str]:
    """Values of the first card; empty where there is none."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [value.strip() for value in done.stdout.strip().split(",")] if done.returncode == 0 else []


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
