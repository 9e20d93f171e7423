"""Every benchmark that runs on this machine, results beside each other: `make bench`.

python benchmarks/run_all.py --out benchmarks/results/NAME     # a folder, made if needed
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = ("core_step", "host_path", "sampler", "ops_cpu", "linear_layout", "serve_cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / time.strftime("%Y-%m-%d"))
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        print(f"== {name}", flush=True)
        command = [sys.executable, HERE / f"{name}.py", "--out", arguments.out / f"{name}.json"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
