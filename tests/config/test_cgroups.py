"""What containers and services leave to us, read from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.base import cgroups, native
from octavo.base.cgroups import NO_LIMIT

SERVICE = "system.slice/octavo.service"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own = tmp_path / "own"
    own.write_text(f"1:cpu:/old\n0::/{SERVICE}\n")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "OWN", own)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 9),
        ({"cpu.max": ""}, 9),
        ({}, 9),
        ({f"{SERVICE}/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2),
        ({f"{SERVICE}/cpu.max": "max 100000", "system.slice/cpu.max": "400000 100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 9),
    ],
)
def test_the_least_share_of_time_holds(
    files: dict[str, str], cores: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, files)
    monkeypatch.setattr(native, "_allowed_cores", lambda: 9)
    assert native.physical_cores() == cores


OLD = {"memory/memory.limit_in_bytes": "5000", "memory/memory.usage_in_bytes": "4000"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, NO_LIMIT),
        ({"memory.max": "max", "memory.current": "4000"}, NO_LIMIT),
        ({"memory.max": "5000", "memory.current": "4000"}, 1000),
        ({"memory.max": "5000", "memory.current": "5010"}, 0),
        ({"memory.max": "5000"}, NO_LIMIT),
        # A service's own limit, below that of the slice it is in.
        (
            {
                f"{SERVICE}/memory.max": "3000",
                f"{SERVICE}/memory.current": "1000",
                "system.slice/memory.max": "9000",
                "system.slice/memory.current": "2000",
            },
            2000,
        ),
        # The pages of a model's file that was read before.
        (
            {
                "memory.max": "5000",
                "memory.current": "4000",
                "memory.stat": "anon 500\nfile 3500\ninactive_file 3000\nactive_file 400",
            },
            4400,
        ),
        ({"memory.max": "5000", "memory.current": "4000", "memory.stat": "anon 500"}, 1000),
        (OLD, 1000),
        ({**OLD, "memory/memory.stat": "total_inactive_file 2000\ntotal_active_file 500"}, 3500),
    ],
)
def test_the_least_memory_holds_and_read_files_are_free(files: dict[str, str], free: int, root: Path) -> None:
    write(root, files)
    assert cgroups.free_memory() == free
