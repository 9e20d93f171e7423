"""Octavo behind the harness's protocol, and driven by single steps: the one place that reaches inside LLM."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.measure import check_count
from benchmarks.gpu.workloads import Request
from octavo import LLM, SamplingParams
from octavo.engine.request_state import RequestState
from octavo.messages.params import RequestOutputKind


def load_dummy(folder: Path, options: Mapping[str, Any]) -> OctavoEngine:
    """Random weights for the config in `folder`, with the settings that all engines are measured with."""
    settings = {
        "load_format": "dummy",
        "dtype": "bfloat16",
        "max_model_len": 16384,
        "skip_tokenizer_init": True,
    }
    return OctavoEngine(LLM(model=str(folder), **{**settings, **options}))


class OctavoEngine:
    """An LLM whose requests can also be stepped by hand, as a caller that streams would see them."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self._open: dict[int, tuple[int, RequestState]] = {}

    @property
    def is_busy(self) -> bool:
        return bool(self._open)

    def offline(self, batch: Sequence[Request]) -> float:
        params = [_params(request, RequestOutputKind.FINAL_ONLY) for request in batch]
        prompts: list[Any] = [request.prompt_token_ids for request in batch]
        began = time.perf_counter()
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        wall = time.perf_counter() - began
        for request, output in zip(batch, outputs, strict=True):
            check_count(request, len(output.outputs[0].token_ids))
        return wall

    def stepped(self, batch: Sequence[Request]) -> list[list[float]]:
        times: list[list[float]] = [[] for _ in batch]
        began = time.perf_counter()
        try:
            self.submit(batch)
            while self.is_busy:
                arrived = self.step()
                elapsed = time.perf_counter() - began
                for number, count in arrived:
                    times[number] += [elapsed] * count
        finally:
            if self.is_busy:  # after an error nothing may stay behind
                self.drop()
        for request, arrivals in zip(batch, times, strict=True):
            check_count(request, len(arrivals))
        return times

    def reset_cache(self) -> None:
        self.llm.reset_prefix_cache()

    def submit(self, batch: Sequence[Request]) -> None:
        """Hand over requests, numbered from 0."""
        for number, request in enumerate(batch):
            prepared = self.llm._preparer.prepare(
                request.prompt_token_ids, _params(request, RequestOutputKind.DELTA), request_id=str(number)
            )
            state = self.llm._processor.open(prepared)
            self._open[id(state)] = (number, state)
            for sample in prepared.samples:
                self.llm._core.add(sample)

    def step(self) -> list[tuple[int, int]]:
        """One step of the core. (request number, tokens that arrived) for those that got any."""
        changed, to_abort = self.llm._processor.process(self.llm._core.step())
        assert not to_abort, "requests end by length alone"
        arrived = []
        for state in changed:
            number, _ = self._open[id(state)]
            if state.error is not None:
                raise RuntimeError(f"request {number} failed: {state.error}")
            output = state.take_output()
            if output is None:
                continue
            arrived.append((number, len(output.outputs[0].token_ids)))
            if output.finished:
                del self._open[id(state)]
        return arrived

    def drop(self) -> None:
        """End all submitted requests."""
        left = [sample for _, state in self._open.values() for sample in self.llm._processor.close(state)]
        self._open.clear()
        self.llm._core.abort(left)
        while self.llm._core.has_work():
            self.llm._core.step()


def _params(request: Request, kind: RequestOutputKind) -> SamplingParams:
    return SamplingParams(
        temperature=0.0,
        max_tokens=request.output_len,
        ignore_eos=True,
        detokenize=False,
        output_kind=kind,
    )
