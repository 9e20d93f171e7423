"""Is it right on this device? Octavo beside transformers, alone and in a crowd, before anything is timed.

    python -m benchmarks.gpu.check --out r.json [--model smollm2.gguf]

Random tiny models and the default model in float32 (tokens equal), in bfloat16 (as near to float32 as
transformers' own bfloat16), and `deterministic` mode (bit-equal in any company).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.results import ResultFile
from benchmarks.gpu.shapes import QWEN_0_6B, write_model, write_tokenizer
from benchmarks.gpu.tiny_models import FAMILIES, VOCAB_SIZE, load_reference, round_weights, save_tiny

NUM_TOKENS = 32
PROMPT_LENGTHS = (1, 2, 15, 16, 17, 31, 33, 64, 90, 150, 257, 400)
NUM_BLOCKS = 4096
"""KV blocks of the engines here: both models have to fit."""

NEAR_TIE = 1e-3
"""Float32 sums in another order may pick another token only where two are this close, in log-probability."""

FLOAT32_TOLERANCE = 2e-3
TEXTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a village by the sea, there lived",
    "def fibonacci(n):\n    ",
    "The three primary colours are",
    "In 1969, the first people to walk on",
)


@dataclass(frozen=True)
class CheckResult:
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Generated:
    """What the engine answered: the prompt, the tokens, the log-probability of each."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


def main(argv: Sequence[str] | None = None) -> int:
    """The number of failed checks."""
    arguments = _parse(argv)
    results = run_checks(
        arguments.device, arguments.model, with_kernels=not arguments.no_kernels, only=arguments.only
    )
    if arguments.out:
        ResultFile(arguments.out).put_session("check", [asdict(result) for result in results])
    return sum(not result.ok for result in results)


def run_checks(device: str, model: Path | None, *, with_kernels: bool, only: str = "") -> list[CheckResult]:
    """All checks, each printed when done. One that breaks counts as failed."""
    results = []
    with tempfile.TemporaryDirectory() as root:
        for name, check in _checks(device, Path(root), model, with_kernels):
            if only not in name:
                continue
            try:
                ok, detail = check()
            except Exception as error:
                traceback.print_exc()
                ok, detail = False, f"{type(error).__name__}: {error}"[:300]
            results.append(CheckResult(name, ok, detail))
            print(f"{'ok  ' if ok else 'FAIL'} {name}: {detail}", flush=True)
    return results


def _checks(
    device: str, root: Path, model: Path | None, with_kernels: bool
) -> list[tuple[str, Callable[[], tuple[bool, str]]]]:
    checks: list[tuple[str, Callable[[], tuple[bool, str]]]] = []
    for family in FAMILIES:
        folder = root / family
        checks += [
            (f"tiny {family} float32", partial(float32_equals, family, folder, device)),
            (f"tiny {family} bfloat16", partial(bfloat16_is_near, family, folder, device)),
        ]
        if device == "cuda":  # deterministic mode is a mode of the GPU's kernels
            checks.append((f"tiny {family} deterministic", partial(is_deterministic, family, folder)))
    if device == "cuda":
        checks.append((f"{QWEN_0_6B.name} deterministic", partial(real_size_is_deterministic, root)))
    if model is not None:
        checks.append((f"{model.name} float32", partial(real_model_equals, model, device)))
    if with_kernels:
        checks.append(("kernels against their twins", kernels_match))
    return checks


def float32_equals(family: str, folder: Path, device: str) -> tuple[bool, str]:
    """Every token is the reference's best after those before it, with the same log-probability."""
    if not folder.exists():
        save_tiny(family, folder)
    answers = generate(folder, prompts(), dtype="float32")
    return _equals(answers, load_reference(folder, device))


def bfloat16_is_near(family: str, folder: Path, device: str) -> tuple[bool, str]:
    """Our bfloat16 strays from float32 on the same weights no further than transformers' bfloat16 does."""
    if not folder.exists():
        save_tiny(family, folder)
    answers = generate(folder, prompts(), dtype="bfloat16")
    narrow = load_reference(folder, device, "bfloat16")
    theirs = [token_logprobs(narrow, answer)[0] for answer in answers]
    exact_model = round_weights(load_reference(folder, device))
    exact = [token_logprobs(exact_model, answer)[0] for answer in answers]
    our_error = _mean_error([answer.logprobs for answer in answers], exact)
    their_error = _mean_error(theirs, exact)
    detail = f"mean error of log-probabilities {our_error:.4f}, transformers' bfloat16 {their_error:.4f}"
    return our_error <= 1.5 * their_error + 1e-3, detail


def is_deterministic(family: str, folder: Path) -> tuple[bool, str]:
    if not folder.exists():
        save_tiny(family, folder)
    return _same_in_a_crowd(folder, VOCAB_SIZE, {})


def real_size_is_deterministic(root: Path) -> tuple[bool, str]:
    """Random weights at the smaller measured shape: the kernels and tilings that are timed."""
    folder = write_model(QWEN_0_6B, root)
    write_tokenizer(folder, QWEN_0_6B.vocab_size)
    return _same_in_a_crowd(folder, QWEN_0_6B.vocab_size, {"load_format": "dummy"})


def real_model_equals(path: Path, device: str) -> tuple[bool, str]:
    """The default model on texts, through its own tokenizer."""
    from octavo import LLM
    from tests.reference import load_reference as load_checkpoint_reference

    with LLM(str(path), dtype="float32", max_model_len=512, num_gpu_blocks_override=NUM_BLOCKS) as llm:
        tokenizer = llm.get_tokenizer()
        answers = _generate(llm, [tokenizer.encode(text) for text in TEXTS])
    return _equals(answers, load_checkpoint_reference(path).to(device))


def kernels_match() -> tuple[bool, str]:
    """The native tests of the kernels, at real shapes."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu",
        "-m",
        "gpu",
        "-q",
        "--tb=line",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
    if done.returncode:
        print("\n".join(lines[-30:]))
    return done.returncode == 0, lines[-1]


def generate(folder: Path, batch: list[list[int]], **options: Any) -> list[Generated]:
    """Greedy answers of a fresh engine, all prompts at once."""
    from octavo import LLM

    settings = {"max_model_len": 1024, "num_gpu_blocks_override": NUM_BLOCKS, **options}
    with LLM(str(folder), **settings) as llm:
        return _generate(llm, batch)


def prompts(vocab_size: int = VOCAB_SIZE) -> list[list[int]]:
    """Lengths around every edge, and some that share a beginning."""
    generator = np.random.default_rng(3)
    fresh: list[list[int]] = [generator.integers(0, vocab_size, n).tolist() for n in PROMPT_LENGTHS]
    shared = fresh[-1][:80]
    return fresh + [[*shared[: 24 + 9 * i], *fresh[3][: i + 1]] for i in range(6)]


def token_logprobs(model: Any, answer: Generated) -> tuple[list[float], list[float]]:
    """The reference's log-probability of every answered token, and of its own best one."""
    import torch

    ids = torch.tensor([answer.prompt + answer.tokens], device=model.device)
    with torch.inference_mode():
        logits_TV = model(ids).logits[0, len(answer.prompt) - 1 : -1].float()
    logprobs_TV = logits_TV.log_softmax(-1)
    chosen = logprobs_TV.gather(1, ids[0, len(answer.prompt) :, None])[:, 0]
    return chosen.tolist(), logprobs_TV.max(-1).values.tolist()


def _generate(llm: Any, batch: list[list[int]]) -> list[Generated]:
    from octavo import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=1)
    answers = []
    for output in llm.generate(batch, params, use_tqdm=False):
        tokens = list(output.outputs[0].token_ids)
        per_token = output.outputs[0].logprobs
        logprobs = [per_token[place][token].logprob for place, token in enumerate(tokens)]
        answers.append(Generated(list(output.prompt_token_ids), tokens, logprobs))
    return answers


def _equals(answers: list[Generated], reference: Any) -> tuple[bool, str]:
    ties = worse = 0
    error = 0.0
    for answer in answers:
        chosen, best = token_logprobs(reference, answer)
        behind = [top - mine for mine, top in zip(chosen, best, strict=True)]
        ties += sum(0 < gap <= NEAR_TIE for gap in behind)
        worse += sum(gap > NEAR_TIE for gap in behind)
        error = max(error, *(abs(a - b) for a, b in zip(chosen, answer.logprobs, strict=True)))
    count = sum(len(answer.tokens) for answer in answers)
    detail = f"{count} tokens, {worse} wrong, {ties} near ties, log-probabilities within {error:.1e}"
    return worse == 0 and error <= FLOAT32_TOLERANCE, detail


def _same_in_a_crowd(folder: Path, vocab_size: int, options: dict[str, Any]) -> tuple[bool, str]:
    """Tokens and log-probabilities, bit for bit, of each prompt alone and of all together."""
    from octavo import LLM

    batch = prompts(vocab_size)
    settings = {"max_model_len": 1024, "num_gpu_blocks_override": NUM_BLOCKS, "dtype": "bfloat16", **options}
    with LLM(str(folder), deterministic=True, enable_prefix_caching=False, **settings) as llm:
        together = _generate(llm, batch)
        alone = [_generate(llm, [prompt])[0] for prompt in batch[::3]]
    apart = sum(one != crowd for one, crowd in zip(alone, together[::3], strict=True))
    return apart == 0, f"{len(alone)} prompts, {apart} differ between alone and in a crowd of {len(batch)}"


def _mean_error(values: list[list[float]], exact: list[list[float]]) -> float:
    errors = [
        abs(a - b)
        for mine, reference in zip(values, exact, strict=True)
        for a, b in zip(mine, reference, strict=True)
    ]
    return float(np.mean(errors))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="result file; added to if it exists")
    parser.add_argument("--model", type=Path, help="the default model's GGUF file")
    parser.add_argument("--device", default="cuda", help="where transformers computes")
    parser.add_argument("--only", default="", help="checks with this in their name")
    parser.add_argument("--no-kernels", action="store_true", help="leave out the kernels' own tests")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
