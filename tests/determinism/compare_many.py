"""Many comparisons of requests alone and in company: `python -m tests.determinism.compare_many`.

    --comparisons N   at least so many (10,000)
    --seed S          of the prompts
    --models NAME ... families of tests/conformance/families.py; default: some of each make, and the default
                      model's GGUF file; `all`: every family
    --dtypes NAME ... float32 and bfloat16, for the families

Prints a JSON result and a line that says PASS or FAIL.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from octavo.base.errors import OctavoError
from octavo.config.model import DEFAULT_MODEL
from octavo.weights.sources.find import find_model
from tests.conformance.families import FAMILIES
from tests.conformance.test_generation import keeps_state, num_kv_groups
from tests.determinism.company import MODES, Report, compare, draw_requests
from tests.tiny import VOCAB_SIZE, save_model

SOME = ("llama", "gemma2", "gemma3", "qwen3_moe", "gpt_neox", "phi", "opt", "bloom")
"""Of each make: plain, with soft caps, with windows, a mixture, with layer norms, linear biases."""
REAL = "the default model"
REAL_VOCAB = 49152
REQUESTS = 48
"""Of one model at a time."""


class Subject(NamedTuple):
    """A model with its options."""

    name: str
    path: Path
    vocab_size: int
    kv_groups: int
    options: dict[str, Any]
    keeps_state: bool = False


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=[*SOME, REAL])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    given = parser.parse_args(words)
    names = list(FAMILIES) if given.models == ["all"] else given.models
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [subject for name in names for subject in subjects(name, Path(folder), given.dtypes)]
        by_subject = compare_many(chosen, given.comparisons, given.seed)
    total = Report()
    for report in by_subject.values():
        total.add(report)
    passed = total.mismatches == 0 and total.comparisons >= given.comparisons
    result = {
        "comparisons": total.comparisons,
        "mismatches": total.mismatches,
        "preemptions": total.preemptions,
        "cached_tokens": total.cached_tokens,
        "seed": given.seed,
        "seconds": round(time.monotonic() - began),
        "models": {
            name: {"comparisons": report.comparisons, "mismatches": report.mismatches}
            for name, report in by_subject.items()
        },
        "examples": total.examples,
        "passed": passed,
    }
    sys.stdout.write(f"{json.dumps(result, indent=1)}\n{'PASS' if passed else 'FAIL'} determinism\n")
    return 0 if passed else 1


def subjects(name: str, folder: Path, dtypes: list[str]) -> Iterator[Subject]:
    """A tiny random model in each dtype, or the default model's file as it is."""
    if name == REAL:
        try:
            path = find_model(DEFAULT_MODEL, offline=True)
        except OctavoError as error:
            sys.exit(f"{error} `octavo pull {DEFAULT_MODEL}` fetches it; or name other --models.")
        yield Subject(REAL, path, REAL_VOCAB, 1, {"skip_tokenizer_init": True})
        return
    family, overrides = FAMILIES[name]
    path = save_model(folder / name.replace(" ", "-"), family, **overrides)
    state = keeps_state(json.loads((path / "config.json").read_text()))
    for dtype in dtypes:
        options = {"dtype": dtype, "skip_tokenizer_init": True}
        yield Subject(f"{name}, {dtype}", path, VOCAB_SIZE, num_kv_groups(path), options, state)


def compare_many(chosen: list[Subject], comparisons: int, seed: int) -> dict[str, Report]:
    """Rounds over the models with fresh prompts until there are so many comparisons."""
    reports = {subject.name: Report() for subject in chosen}
    for turn in count():
        for index, subject in enumerate(chosen):
            source = random.Random(f"{seed} {turn} {index}")
            modes = [mode for mode in MODES if not (subject.keeps_state and mode == "the second time")]
            requests = draw_requests(source, REQUESTS, subject.vocab_size)
            report = compare(subject.path, requests, modes, kv_groups=subject.kv_groups, **subject.options)
            reports[subject.name].add(report)
            sys.stderr.write(f"{subject.name}: {reports[subject.name]}\n")
        if sum(report.comparisons for report in reports.values()) >= comparisons:
            return reports
    raise AssertionError("count() does not end")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
