"""`octavo env`: what a bug report should say about the environment. Imports no torch, shows no secret."""

from __future__ import annotations

import argparse
import platform
import sys

import octavo
from octavo.base import env
from octavo.base.native import native_kernels, why_no_kernels
from octavo.cli import machine
from octavo.cli.command import Command
from octavo.cli.units import show_bytes
from octavo.config.flags import FlagParser


def _add_arguments(parser: FlagParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def environment() -> dict[str, object]:
    """The report as plain values."""
    total, available = machine.memory_bytes()
    cache = env.cache_dir()
    return {
        "octavo": octavo.__version__,
        "commit": machine.commit(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python prefix": sys.prefix,
        "platform": platform.platform(),
        "cpu": machine.cpu_model(),
        "cpus": machine.usable_cpus(),
        "cpu features": machine.cpu_features(),
        "cpu kernels": native_kernels() or why_no_kernels(),
        "gpus": machine.gpu_names(),
        "memory": f"{show_bytes(available)} available of {show_bytes(total)}",
        "cache": str(cache),
        "cache exists": cache.is_dir(),
        "offline": env.is_offline(),
        "api key set": env.api_key() is not None,
        "log level": env.log_level(),
        "packages": machine.installed_versions(),
    }


def _run(parsed: argparse.Namespace) -> int:
    report = environment()
    if parsed.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(report)).decode())
        return 0
    packages = report.pop("packages")
    assert isinstance(packages, dict), "packages map names to versions"
    rows = {name: _show(value) for name, value in report.items()}
    rows.update({name: version or "not installed" for name, version in packages.items()})
    width = max(map(len, rows))
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items()))
    return 0


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)


COMMAND = Command(
    description="Report the environment for a bug report: versions, machine, folders. Never shows secrets.",
    add_arguments=_add_arguments,
    run=_run,
)
