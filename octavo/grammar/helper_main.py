"""A helper process: compiles one wish after another, within limits. Started by GrammarDesk's leash only.

First comes the vocabulary, then wishes, answered by outcomes.
"""

from __future__ import annotations

import threading
import time

import msgspec

from octavo.base.errors import RequestError
from octavo.base.leashed import Answer, serve
from octavo.grammar.compiler import GrammarCompiler
from octavo.grammar.limits import COMPILE_CPU_S, HELPER_MEMORY_BYTES, HELPER_STACK_BYTES
from octavo.grammar.outcome import Outcome, too_complex
from octavo.grammar.vocabulary import Vocabulary
from octavo.messages.structured import StructuredOutputsParams

JOB_CPU_S = 3
"""A helper that nobody watches any more ends itself."""


def begin(first: bytes) -> Answer:
    compiler = GrammarCompiler(msgspec.msgpack.decode(first, type=Vocabulary))

    def answer(frame: bytes) -> bytes:
        wish = msgspec.msgpack.decode(frame, type=StructuredOutputsParams)
        return msgspec.msgpack.encode(_on_small_stack(compiler, wish))

    return answer


def _on_small_stack(compiler: GrammarCompiler, wish: StructuredOutputsParams) -> Outcome:
    outcomes: list[Outcome] = []
    threading.stack_size(HELPER_STACK_BYTES)
    thread = threading.Thread(target=lambda: outcomes.append(_compile(compiler, wish)))
    thread.start()
    thread.join()
    return outcomes[0] if outcomes else too_complex(wish.kind)


def _compile(compiler: GrammarCompiler, wish: StructuredOutputsParams) -> Outcome:
    began = time.process_time()
    try:
        outcome = Outcome(canonical=compiler.compile(wish))
    except RequestError as error:
        return Outcome.refused(error)
    except (MemoryError, RecursionError):
        return too_complex(wish.kind)
    return too_complex(wish.kind) if time.process_time() - began > COMPILE_CPU_S else outcome


if __name__ == "__main__":
    serve(begin, cpu_s=JOB_CPU_S, memory_bytes=HELPER_MEMORY_BYTES)
