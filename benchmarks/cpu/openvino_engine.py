"""OpenVINO GenAI on a GGUF file: run by main.py with the interpreter of an environment that has it.

    openvino_engine.py MODEL REQUESTS INPUT_TOKENS OUTPUT_TOKENS

Prints output tokens per second of all requests given at once.
"""

from __future__ import annotations

import random
import sys
import time

import openvino_genai

WORDS = ("time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school", "state")
"""Each is one token in this vocabulary."""


def main() -> None:
    model, *sizes = sys.argv[1:]
    num_requests, input_len, output_len = map(int, sizes)
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = num_requests
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU")
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = output_len
    config.ignore_eos, config.apply_chat_template = True, False
    source = random.Random(0)

    def prompts(count: int) -> list[str]:
        return ["The " + " ".join(source.choices(WORDS, k=input_len - 1)) for _ in range(count)]

    pipeline.generate(prompts(1), [config])
    began = time.perf_counter()
    pipeline.generate(prompts(num_requests), [config] * num_requests)
    print(num_requests * output_len / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
