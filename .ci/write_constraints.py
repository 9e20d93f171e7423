"""Write constraints.txt: of each package the newest version in the given environments (`make newest`)."""

import json
import subprocess
import sys
from pathlib import Path

from packaging.version import Version

HEADER = """\
# The newest versions with which all tests have passed: what `make` installs is never newer, so that nobody
# else's release can break it overnight. `pip install` of Octavo itself keeps to pyproject.toml's ranges.
# `make newest` writes this file from what is out today; commit it when the tests pass.
"""
# torch and what comes with it differ from machine to machine; pyproject.toml bounds them.
LEFT_OUT = ("octavo", "pip", "setuptools", "torch", "triton", "nvidia-", "cuda-")


def versions(python: str) -> dict[str, Version]:
    command = [python, "-m", "pip", "list", "--format=json"]
    listed = subprocess.run(command, capture_output=True, check=True).stdout
    return {
        package["name"].lower().replace("_", "-"): Version(package["version"])
        for package in json.loads(listed)
        if not package["name"].startswith(LEFT_OUT)
    }


def main() -> None:
    newest: dict[str, Version] = {}
    for python in sys.argv[1:]:
        for name, version in versions(python).items():
            newest[name] = max(version, newest.get(name, version))
    lines = [f"{name}<={version.public}\n" for name, version in sorted(newest.items())]
    Path("constraints.txt").write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
