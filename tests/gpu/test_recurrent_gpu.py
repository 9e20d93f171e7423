"""Recurrent layers, compiled: kernels against their twins, in graphs, and a whole model against the CPU's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from octavo import LLM, SamplingParams
from octavo.ops.causal_conv import causal_conv
from octavo.ops.contract import Op
from octavo.ops.gated_delta import DeltaWeights, gated_delta, gated_delta_cpu
from octavo.ops.gated_norm import gated_rms_norm
from octavo.ops.ssd import SSDWeights, ssd, ssd_cpu
from octavo.ops.step_rows import StepRows, example_rows
from tests.conformance.families import FAMILIES
from tests.tiny import save_model

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
OPS = [causal_conv, gated_rms_norm, ssd, gated_delta]
CROWD = ((7, 30, 1), (3, 0, 1), (0, 5, 1), (1, 0, 700), (6, 90, 2), (2, 33, 65), (5, 0, 64))


def moved(value: Any, dtype: torch.dtype | None = None) -> Any:
    """On the GPU; floating-point tensors as `dtype`, if one is given."""
    if isinstance(value, torch.Tensor):
        return value.to(CUDA, dtype if dtype is not None and value.is_floating_point() else None)
    if isinstance(value, StepRows | SSDWeights | DeltaWeights):
        return type(value)(*(moved(part) for part in value))
    return value


def on_gpu(op: Op[..., Any], example: Sequence[Any], dtype: torch.dtype) -> list[Any]:
    return [moved(value, None if i in op.float32_arguments else dtype) for i, value in enumerate(example)]


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.float() - truth.float()).norm() / truth.float().norm())


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_examples(op: Op[..., Any], dtype: torch.dtype) -> None:
    for example, same in zip(op.examples(), op.examples(), strict=True):
        given, truth = on_gpu(op, example, dtype), on_gpu(op, same, dtype)
        pairs = [(op.on(CUDA)(*given), op.plain(*truth)), *((given[i], truth[i]) for i in op.writes)]
        for ours, theirs in pairs:
            if dtype == torch.float32:
                torch.testing.assert_close(ours, theirs, atol=op.tolerance, rtol=op.tolerance)
            else:
                assert error(ours, theirs) < 0.02


def granite(num_tokens: int) -> tuple[list[torch.Tensor], SSDWeights, torch.Tensor]:
    """Granite 4 tiny's mixer: 48 heads of 64 with 128 numbers of state each, B and C for all."""
    parts = [torch.randn(num_tokens, columns, device=CUDA) for columns in (3072, 128, 128, 48)]
    decay = torch.rand(48, device=CUDA).mul(15).add(1).log()
    weights = SSDWeights(decay, torch.randn(48, device=CUDA), torch.randn(48, device=CUDA) - 3, (0.0, 9.0))
    return parts, weights, torch.randn(8, 48, 64, 128, device=CUDA)


def qwen(num_tokens: int) -> tuple[list[torch.Tensor], DeltaWeights, torch.Tensor]:
    """Qwen3-Next's: 32 heads of 128 values, 16 groups with keys of 128."""
    parts = [torch.randn(num_tokens, columns, device=CUDA) for columns in (2048, 2048, 4096, 32, 32)]
    weights = DeltaWeights(torch.rand(32, device=CUDA).mul(15).add(1).log(), torch.randn(32, device=CUDA) - 3)
    return parts, weights, torch.randn(8, 32, 128, 128, device=CUDA) * 0.1


SHAPES = [
    pytest.param(ssd, ssd_cpu, granite, id="granite"),
    pytest.param(gated_delta, gated_delta_cpu, qwen, id="qwen"),
]


@pytest.mark.parametrize(("op", "on_cpu", "draw"), SHAPES)
@pytest.mark.parametrize("is_by_token", [False, True])
def test_a_crowd_in_the_shape_of_real_models(op: Any, on_cpu: Any, draw: Any, is_by_token: bool) -> None:
    """bfloat16, against the matrix form on a CPU in float32. A recurrence forgets its rounding slowly."""
    torch.manual_seed(0)
    step = example_rows(*CROWD)
    parts, weights, states = draw(int(step.starts_S1[len(CROWD)]))
    narrow = [part.bfloat16() for part in parts]
    truth_states = states.cpu().clone()
    truth = on_cpu(
        *(part.float().cpu() for part in narrow),
        type(weights)(*(w.cpu() if isinstance(w, torch.Tensor) else w for w in weights)),
        truth_states,
        step,
        False,
    )
    found = op.on(CUDA)(*narrow, weights, states, moved(step), is_by_token)
    assert error(found.cpu(), truth) < 0.02
    assert error(states.cpu(), truth_states) < 0.02
    assert torch.equal(states[4].cpu(), truth_states[4]), "a row that is not in the step"


@pytest.mark.parametrize(("op", "on_cpu", "draw"), SHAPES)
def test_a_graph_replays_other_steps(op: Any, on_cpu: Any, draw: Any) -> None:
    """Captured for at most so many sequences, replayed with fewer, of other lengths and rows."""
    torch.manual_seed(0)
    num_tokens, num_seqs = 900, 8
    parts, weights, states = draw(num_tokens)
    ints = torch.zeros(3, num_seqs + 1, dtype=torch.int32, device=CUDA)
    bounds = StepRows(
        rows_S=ints[0, :num_seqs],
        starts_S1=ints[1],
        lengths_S=ints[2, :num_seqs],
        counts=torch.zeros(8, dtype=torch.int32, device=CUDA),
        num_seqs=num_seqs,
        num_singles=num_seqs,
        has_chunks=True,
    )
    op.on(CUDA)(*parts, weights, states, bounds, False)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = op.on(CUDA)(*parts, weights, states, bounds, False)
    for sequences in (CROWD, CROWD[:3], CROWD[3:5], ((2, 4, 1), (4, 0, 899))):
        step = moved(example_rows(*sequences, places=num_seqs - len(sequences)))
        bounds.rows_S.copy_(step.rows_S)
        bounds.starts_S1.copy_(step.starts_S1)
        bounds.lengths_S.copy_(step.lengths_S)
        bounds.counts.copy_(step.counts)
        eager_states, total = states.clone(), int(step.starts_S1[len(sequences)])
        truth = op.on(CUDA)(*parts, weights, eager_states, step, False)
        graph.replay()
        assert torch.equal(y[:total], truth[:total])
        assert torch.equal(states, eager_states)


@pytest.mark.parametrize(("op", "on_cpu", "draw"), SHAPES)
def test_by_token_a_cut_changes_no_bit(op: Any, on_cpu: Any, draw: Any) -> None:
    torch.manual_seed(0)
    parts, weights, _ = draw(200)
    results = []
    for ends in ((200,), (1, 2, 64, 130, 200)):
        states = torch.zeros_like(draw(1)[2])
        found, first = [], 0
        for end in ends:
            step = moved(example_rows((0, first, end - first)))
            found.append(
                op.on(CUDA)(*(part[first:end] for part in parts), weights, states, step, True).clone()
            )
            first = end
        results.append((torch.cat(found), states[0]))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["granite hybrid", "falcon h1", "qwen3 next", "mamba2"])
def test_a_model_says_what_it_says_on_a_cpu(tmp_path: Path, name: str) -> None:
    """Chunked, preempted, with graphs and two steps in flight: the same greedy tokens in float32."""
    family, overrides = FAMILIES[name]
    folder = save_model(tmp_path / "model", family, **{**overrides, "initializer_range": 0.1})
    prompts = [[7 * i % 250 for i in range(length)] for length in (1, 2, 17, 64, 65, 200, 333)] * 3
    greedy = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    options: dict[str, Any] = {"dtype": "float32", "max_model_len": 640, "max_num_seqs": 12}
    answers = {}
    for device, more in (
        ("cpu", {}),
        ("cuda", {"max_num_batched_tokens": 96, "num_blocks": 60}),
        ("cuda, deterministic", {"max_num_batched_tokens": 96, "num_blocks": 60, "deterministic": True}),
    ):
        with LLM(str(folder), device=device.split(",")[0], **options, **more) as llm:
            outputs = llm.generate(prompts, greedy, use_tqdm=False)
            answers[device] = [output.outputs[0].token_ids for output in outputs]
            # Mamba-2 alone has no blocks that could run out.
            assert ("num_blocks" in more and name != "mamba2") is (llm.stats().num_preemptions > 0)
    same = sum(ours == theirs for ours, theirs in zip(answers["cpu"], answers["cuda"], strict=True))
    assert same >= 0.9 * len(prompts), "now and then two tokens are nearly as likely"
    assert answers["cuda, deterministic"][:7] == answers["cuda, deterministic"][7:14]
