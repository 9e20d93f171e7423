"""Which processes of ours run a module."""

from __future__ import annotations

import psutil


def children_running(module: str) -> list[psutil.Process]:
    """Those on their way out are left out."""
    return [child for child in psutil.Process().children() if module in _command_line(child)]


def _command_line(child: psutil.Process) -> str:
    try:
        return " ".join(child.cmdline())
    except psutil.Error:
        return ""
