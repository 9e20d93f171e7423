"""What a form costs: throughput with a JSON schema against free text in the same run, and masks per step.

python -m benchmarks.structured_output                               the default model on the CPU
python -m benchmarks.structured_output --shape llama-3.1-8b          random weights on a GPU, the default
                                                                     model's tokenizer (or --tokenizer)
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from octavo import LLM, SamplingParams, StructuredOutputsParams

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 60},
        "year": {"type": "integer", "minimum": 1900, "maximum": 2100},
        "authors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 40}, "email": {"type": "string"}},
                "required": ["name", "email"],
                "additionalProperties": False,
            },
            "minItems": 30,
        },
    },
    "required": ["title", "year", "authors"],
    "additionalProperties": False,
}
"""Long enough that no answer ends before its last token."""

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
SHAPES = {"llama-3.1-8b": LLAMA_8B}


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder, _engine(args, Path(folder)) as llm:
        clock = MaskClock(llm)
        for _ in range(2):  # Grammar, tokenizer and kernels are there afterwards.
            run(llm, args, has_form=True, tokens=8)
            run(llm, args, has_form=False, tokens=8)
        clock.times.clear()
        free, bound = [], []
        for _ in range(args.rounds):  # Turn by turn: both meet the same machine.
            free.append(run(llm, args, has_form=False))
            bound.append(run(llm, args, has_form=True))
    ratio = statistics.median(b / f for f, b in zip(free, bound, strict=True))
    print(
        json.dumps(
            {
                "batch": args.batch,
                "tokens": args.tokens,
                "free_tokens_per_s": round(statistics.median(free), 1),
                "json_schema_tokens_per_s": round(statistics.median(bound), 1),
                "ratio": round(ratio, 3),
                "filling_masks_ms_per_step": clock.summary(),
            },
            indent=2,
        )
    )


def run(llm: LLM, args: argparse.Namespace, *, has_form: bool, tokens: int | None = None) -> float:
    """Output tokens per second of one batch. Every answer has all its tokens."""
    form = StructuredOutputsParams(json=SCHEMA, disable_any_whitespace=args.no_whitespace)
    count = tokens or args.tokens
    params = [
        SamplingParams(
            temperature=0.8,
            seed=seed,
            max_tokens=count,
            ignore_eos=not has_form,
            structured_outputs=form if has_form else None,
        )
        for seed in range(args.batch)
    ]
    prompts = [
        f"Record number {number}: list a book and its authors as JSON.\n" for number in range(args.batch)
    ]
    llm.reset_prefix_cache()
    began = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    elapsed = time.perf_counter() - began
    total = sum(len(output.outputs[0].token_ids) for output in outputs)
    if total < 0.9 * count * args.batch:
        raise SystemExit(f"answers ended early: {total} of {count * args.batch} tokens")
    return total / elapsed


class MaskClock:
    """Measures how long the masks of each step take to fill, wherever that runs."""

    def __init__(self, llm: LLM) -> None:
        from octavo.worker.extras.grammar_masks import GrammarMasks

        self.times: list[float] = []
        worker: Any = llm._core.executor
        (extra,) = (e for e in worker._worker._runner.extras if isinstance(e, GrammarMasks))
        extra._fill = self._timed(extra._fill)  # type: ignore[method-assign]

    def summary(self) -> dict[str, float]:
        times = sorted(1000 * seconds for seconds in self.times)
        return {
            "median": round(statistics.median(times), 3),
            "p99": round(times[int(0.99 * (len(times) - 1))], 3),
            "steps": len(times),
        }

    def _timed(self, fill: Callable[[list[int]], Any]) -> Callable[[list[int]], Any]:
        def timed(rows: list[int]) -> Any:
            began = time.perf_counter()
            masks = fill(rows)
            self.times.append(time.perf_counter() - began)
            return masks

        return timed


def _engine(args: argparse.Namespace, folder: Path) -> LLM:
    options: dict[str, Any] = {"max_num_seqs": args.batch, "max_model_len": args.tokens + 128}
    if args.device is not None:
        options["device"] = args.device
    if args.shape is None:
        return LLM(args.model, **options)
    (folder / "config.json").write_text(json.dumps(SHAPES[args.shape]))
    options |= {"load_format": "dummy", "dtype": "bfloat16", "tokenizer": args.tokenizer or args.model}
    return LLM(str(folder), **options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument(
        "--shape", choices=sorted(SHAPES), help="random weights of this shape instead of a model"
    )
    parser.add_argument("--tokenizer", help="folder, file or repository, for --shape")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--no-whitespace", action="store_true", help="forbid whitespace: more tokens are forced"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
