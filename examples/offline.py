"""Complete a few prompts without a server: python examples/offline.py [MODEL]"""

import sys

from octavo import LLM, SamplingParams

prompts = ["The capital of France is", "Two plus two is", "A haiku about the sea:\n"]
params = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=32, seed=7)

with LLM(sys.argv[1] if len(sys.argv) > 1 else None) as llm:
    for output in llm.generate(prompts, params):
        print(repr(output.prompt), "->", repr(output.outputs[0].text))
