"""Kernels compiled by other processes are what this process would have compiled itself.

Runs in a process of its own, where Triton compiles for a GPU that is not there, into an empty folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = '''
import json
import torch
import triton
from triton.backends.compiler import GPUTarget


class Driver:
    """As much of a GPU's driver as compiling needs."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


triton.runtime.driver.set_active(Driver())
from octavo.ops.routing import Routing
from octavo.ops.triton import activation, compile_ahead, experts, norm, routing, sampling, step

def scan_and_pick(dtype):
    """Two kernels with helpers of many others."""
    return lambda: sampling.choose_tokens(torch.zeros(2, 5000, dtype=dtype), None)


compilers = compile_ahead.KernelCompilers()
x, w = torch.zeros(1, 64, dtype=torch.bfloat16), torch.zeros(64, dtype=torch.bfloat16)
memory, z = torch.zeros(4, 40, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
tokens_TE, router_XE = torch.zeros(40, 32, dtype=torch.bfloat16), torch.zeros(4, 32, dtype=torch.bfloat16)
chosen_TK, shares_TK = torch.zeros(40, 2, dtype=torch.int32), torch.zeros(40, 2)
expert_weights = torch.zeros(4, 64, 32, dtype=torch.bfloat16), torch.zeros(4, 32, 32, dtype=torch.bfloat16)
calls = [
    scan_and_pick(torch.bfloat16),
    scan_and_pick(torch.float32),
    lambda: norm.rms_norm(x, w, 1e-5),
    lambda: norm.add_rms_norm(x, x, w, 1e-5),
    lambda: activation.gated_silu(x),
    lambda: routing.route(tokens_TE, router_XE, None, None, Routing(num_chosen=2)),
    lambda: experts.experts(tokens_TE, chosen_TK, shares_TK, *expert_weights),
    lambda: step.append_tokens(memory, z, z, z),
    lambda: step.gather_step(memory, z, z, z, z, [20, 30], 16, z, z, torch.zeros(2, 8, dtype=torch.int32)),
]
tasks = compile_ahead.record(calls)
compilers.start_if_all_is_new()
was_early = compilers._process is not None
compilers.compile(tasks)
compilers.close()
was_there = []
triton.knobs.compilation.listener = lambda *, cache_hit, **_: was_there.append(cache_hit)
for call in calls:
    try:
        call()
    except Exception:  # compiled, or found; there is nothing to launch it on
        pass
later = compile_ahead.KernelCompilers()
later.start_if_all_is_new()
later.compile(tasks)
# Kernels that this process knows by now must not run either: this would try to launch them.
again = compile_ahead.record(calls)
print(json.dumps([len(tasks), was_early, was_there, later._process is not None, again == tasks]))
'''


@pytest.mark.slow
def test_nothing_is_left_to_compile(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    num_tasks, was_early, was_there, again, is_same = json.loads(done.stdout.strip().splitlines()[-1])
    assert num_tasks == 15 and was_early
    assert len(was_there) >= 7 and all(was_there)
    assert not again, "once all is on disk, no process is started"
    assert is_same, "whoever records again, in another engine, runs nothing"
