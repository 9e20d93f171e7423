"""A helper process: compiles one wish after another, within limits. Started by HelperPool only.

Frames on standard input and output: four bytes of length, then msgpack. First comes the vocabulary, then
wishes; an empty frame says that it is ready, then come outcomes. The end of the input is the end.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from octavo.base.errors import RequestError
from octavo.grammar.compiler import GrammarCompiler
from octavo.grammar.limits import COMPILE_CPU_S, HELPER_MEMORY_BYTES, HELPER_STACK_BYTES
from octavo.grammar.outcome import Outcome, too_complex
from octavo.grammar.vocabulary import Vocabulary
from octavo.messages.structured import StructuredOutputsParams

JOB_CPU_S = 3
"""A helper that nobody watches any more ends itself."""


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    frame = read_frame(source)
    if frame is None:
        return
    compiler = GrammarCompiler(msgspec.msgpack.decode(frame, type=Vocabulary))
    _bound_memory()
    write_frame(sink, b"")
    while (frame := read_frame(source)) is not None:
        _bound_time()
        wish = msgspec.msgpack.decode(frame, type=StructuredOutputsParams)
        write_frame(sink, msgspec.msgpack.encode(_on_small_stack(compiler, wish)))


def read_frame(source: BinaryIO) -> bytes | None:
    head = source.read(4)
    return source.read(int.from_bytes(head, "little")) if len(head) == 4 else None


def write_frame(sink: BinaryIO, data: bytes) -> None:
    sink.write(len(data).to_bytes(4, "little") + data)
    sink.flush()


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


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if _has_statm() else 0
    if pages:
        limit = pages * resource.getpagesize() + HELPER_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _has_statm() -> bool:
    return Path("/proc/self/statm").exists()


def _bound_time() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + JOB_CPU_S, hard))


if __name__ == "__main__":
    main()
