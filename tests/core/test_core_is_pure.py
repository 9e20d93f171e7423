"""The core never meets torch or numpy, and its scheduler knows no feature by name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import octavo.core.scheduler

BLOCKED = """
import sys
for name in ("torch", "numpy", "transformers"):
    sys.modules[name] = None
import importlib, pkgutil
import octavo.core
for module in pkgutil.walk_packages(octavo.core.__path__, "octavo.core."):
    importlib.import_module(module.name)
import octavo.executor.fake
"""

FEATURES = [
    "lora",
    "adapter",
    "grammar",
    "draft",
    "speculat",
    "image",
    "media",
    "encoder",
    "mamba",
    "graph",
    "eagle",
]


def test_core_and_fake_executor_import_without_torch_and_numpy() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_scheduler_names_no_feature_and_stays_short() -> None:
    text = Path(octavo.core.scheduler.__file__).read_text()
    assert not [word for word in FEATURES if re.search(word, text, re.IGNORECASE)]
    assert len(text.splitlines()) < 250
