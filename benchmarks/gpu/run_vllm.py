"""Time vLLM on the offline workloads, through its public API and with its default settings.

PYTHONPATH=WHERE_VLLM_IS python -m benchmarks.gpu.run_vllm --shape llama8b --out r.json
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import package_version
from benchmarks.gpu.measure import check_count
from benchmarks.gpu.run_engine import Subject, main
from benchmarks.gpu.workloads import Request

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # greedy sampling never uses it
}
"""What keeps it on this machine. Speed does not depend on it."""


class VllmEngine:
    """vllm.LLM behind the harness's protocol."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
        from vllm.sampling_params import RequestOutputKind  # type: ignore[import-not-found]

        self._make_params = SamplingParams
        self._kinds = RequestOutputKind
        settings = {
            "load_format": "dummy",
            "dtype": "bfloat16",
            "max_model_len": 16384,
            "skip_tokenizer_init": True,
            "seed": 0,
        }
        self._llm = LLM(model=str(folder), **{**settings, **options})

    def offline(self, batch: Sequence[Request]) -> float:
        prompts = [_prompt(request) for request in batch]
        params = [self._params(request, self._kinds.FINAL_ONLY) for request in batch]
        began = time.perf_counter()
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        wall = time.perf_counter() - began
        for request, output in zip(batch, outputs, strict=True):
            check_count(request, len(output.outputs[0].token_ids))
        return wall

    def stepped(self, batch: Sequence[Request]) -> list[list[float]]:
        engine = self._llm.llm_engine
        times: dict[str, list[float]] = {str(number): [] for number in range(len(batch))}
        began = time.perf_counter()
        for number, request in enumerate(batch):
            engine.add_request(str(number), _prompt(request), self._params(request, self._kinds.DELTA))
        while engine.has_unfinished_requests():
            outputs = engine.step()
            elapsed = time.perf_counter() - began
            for output in outputs:
                times[output.request_id] += [elapsed] * len(output.outputs[0].token_ids)
        for request, arrivals in zip(batch, times.values(), strict=True):
            check_count(request, len(arrivals))
        return list(times.values())

    def reset_cache(self) -> None:
        self._llm.reset_prefix_cache()

    def _params(self, request: Request, kind: Any) -> Any:
        params = self._make_params(
            temperature=0.0, max_tokens=request.output_len, ignore_eos=True, detokenize=False
        )
        params.output_kind = kind
        return params


def _prompt(request: Request) -> dict[str, list[int]]:
    return {"prompt_token_ids": request.prompt_token_ids}


def _version(_: VllmEngine) -> str:
    return package_version("vllm")


def _cache_folders() -> list[Path]:
    return [Path(os.environ.get("VLLM_CACHE_ROOT") or Path.home() / ".cache" / "vllm")]


VLLM = Subject(name="vllm", load=VllmEngine, version=_version, cache_folders=_cache_folders)

if __name__ == "__main__":
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sys.exit(main(VLLM))
