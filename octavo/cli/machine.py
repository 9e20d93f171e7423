"""Facts about this machine and installation, without importing anything heavy. Never holds a secret."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import octavo

PACKAGES = (
    "torch", "numpy", "transformers", "tokenizers", "safetensors", "huggingface-hub", "msgspec", "pyzmq",
    "fastapi", "uvicorn", "pydantic", "httpx", "openai", "triton", "matplotlib",
)  # fmt: skip
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "f16c",
    "fma",
)
_ARM_FEATURES = ("asimd", "asimddp", "bf16", "i8mm", "sve")


def installed_versions() -> dict[str, str | None]:
    """Versions of the packages that matter, None where one is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    for line in _proc_lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """The instruction sets that decide how fast a CPU serves."""
    for line in _proc_lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            present = set(value.split())
            return [name for name in (*_FEATURES, *_ARM_FEATURES) if name in present]
    return []


def gpu_names() -> list[str]:
    """NVIDIA devices as the kernel driver lists them."""
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in _proc_lines(str(info)):
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                names.append(value.strip())
    return names


def usable_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> tuple[int, int]:
    """Total memory of the machine, and what this process can still get of it."""
    import psutil

    from octavo.worker.memory import available_bytes

    return int(psutil.virtual_memory().total), available_bytes()


def commit() -> str | None:
    """Commit of the checkout this package runs from, with '+' when it has changes; None if installed."""
    root = Path(octavo.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def machine_facts() -> dict[str, object]:
    """What a benchmark result must say about where it was measured."""
    total, _ = memory_bytes()
    return {
        "octavo": octavo.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": usable_cpus(),
        "cpu_features": cpu_features(),
        "gpus": gpu_names(),
        "memory_bytes": total,
    }


def _proc_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
