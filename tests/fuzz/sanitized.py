"""The native library under AddressSanitizer: `python -m tests.fuzz.sanitized [options of tests.fuzz.run]`.

Builds it apart, and runs the target `gguf_native` with it. A byte read behind a buffer ends the process then.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "fuzz" / "sanitized"
FLAGS = "-fsanitize=address -fno-omit-frame-pointer"
VARIABLE = "OCTAVO_FUZZ_NATIVE"
"""Names the library that the target loads instead of the package's own."""


def main() -> None:
    build = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(FOLDER / "lib")]
    build += ["--build-temp", str(FOLDER / "temp")]
    flags = {"CFLAGS": FLAGS, "LDFLAGS": "-fsanitize=address"}
    subprocess.run(build, cwd=ROOT, env={**os.environ, **flags}, check=True)
    found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        VARIABLE: str(FOLDER / "lib" / "octavo" / "ops" / "cpu" / "libnative.so"),
    }
    run = [sys.executable, "-m", "tests.fuzz.run", "gguf_native", "--engine", "plain", *sys.argv[1:]]
    sys.exit(subprocess.run(run, cwd=ROOT, env=environment).returncode)


if __name__ == "__main__":
    main()
