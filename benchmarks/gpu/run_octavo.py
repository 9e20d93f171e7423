"""Time Octavo on the offline workloads: `python -m benchmarks.gpu.run_octavo --shape llama8b --out r.json`.

With --profile also say where a decode step goes: kernels, gaps, and the host's share.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import octavo
from benchmarks.gpu.octavo_engine import OctavoEngine, load_dummy
from benchmarks.gpu.profile_steps import profile
from benchmarks.gpu.run_engine import Subject, main


def _cache_folders() -> list[Path]:
    return [Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")]


def _facts(engine: OctavoEngine) -> dict[str, Any]:
    ready = engine.llm.ready
    return {
        "seconds": ready.seconds,
        "memory_bytes": ready.memory_bytes,
        "kv_blocks": ready.plan.num_blocks,
        "max_num_seqs": engine.llm.config.schedule.max_num_seqs,
        "max_num_batched_tokens": engine.llm.config.schedule.max_num_batched_tokens,
    }


OCTAVO = Subject(
    name="octavo",
    load=load_dummy,
    version=lambda _: octavo.__version__,
    cache_folders=_cache_folders,
    profile=profile,
    facts=_facts,
)

if __name__ == "__main__":
    sys.exit(main(OCTAVO))
