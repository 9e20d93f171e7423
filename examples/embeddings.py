"""Find the sentences that mean the same, without a server: python examples/embeddings.py [MODEL]"""

import sys

from octavo import LLM

sentences = [
    "A man is playing the guitar.",
    "Somebody makes music on a string instrument.",
    "The new film was a delight.",
    "I loved that movie.",
    "Two dogs chase a ball in the park.",
    "The stock exchange closed lower today.",
]

with LLM(sys.argv[1] if len(sys.argv) > 1 else "all-minilm-l6-v2") as llm:
    vectors = [output.outputs.embedding for output in llm.embed(sentences)]
    for index, sentence in enumerate(sentences):
        others = [number for number in range(len(sentences)) if number != index]
        scores = {
            number: sum(a * b for a, b in zip(vectors[index], vectors[number], strict=True))
            for number in others
        }
        closest = max(scores, key=scores.__getitem__)
        print(f"{sentence!r} -> {sentences[closest]!r} ({scores[closest]:.2f})")

    best = llm.rerank("Which sentence is about animals?", sentences, top_n=1, use_tqdm=False)[0]
    print("about animals:", best.document)
