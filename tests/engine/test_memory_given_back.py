"""What goes back to the system once a process serves."""

from __future__ import annotations

import subprocess
import sys

from octavo.base.memory import _clean_library_ranges

SMAPS = """\
7f00-7f10 r-xp 00000000 08:01 11 /usr/lib/libtorch_cpu.so
Rss:                  64 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
7f10-7f20 r--p 00010000 08:01 11 /usr/lib/libstdc++.so.6.0.30
Anonymous:             0 kB
7f20-7f30 r--p 00020000 08:01 11 /usr/lib/libtorch_cpu.so
Anonymous:             4 kB
7f30-7f40 rw-p 00030000 08:01 11 /usr/lib/libtorch_cpu.so
Anonymous:             0 kB
7f40-7f50 r--s 00000000 08:01 12 /models/model.gguf
Anonymous:             0 kB
7f50-7f60 r-xp 00000000 00:00 0
Anonymous:             0 kB
7f60-7f70 r-xp 00000000 08:01 11 /tmp/a folder/lib.so
Anonymous:             0 kB
"""

PROGRAM = """
import re
from pathlib import Path
import numpy as np
from octavo.base.memory import trim_heap, unmap_library_pages

def mapped():
    return int(re.search(r"RssFile:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before, expected = mapped(), np.linalg.inv(np.eye(50) * 2)
trim_heap()
unmap_library_pages()
after = mapped()
assert np.array_equal(np.linalg.inv(np.eye(50) * 2), expected)
print(before, after)
"""


def test_only_pages_that_equal_their_library_are_let_go():
    """Changed, writable and shared ranges stay, and all that is no library or has an unusual name."""
    assert list(_clean_library_ranges(SMAPS)) == [(0x7F00, 0x7F10), (0x7F10, 0x7F20)]


def test_libraries_work_on_when_their_pages_are_gone():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 2 if sys.platform == "linux" else after > 0
