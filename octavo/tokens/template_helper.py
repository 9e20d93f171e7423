"""A helper process: runs one template of a request after another. Started by TemplateLeash only."""

from __future__ import annotations

import msgspec

from octavo.base.errors import RequestError
from octavo.base.leashed import Answer, serve
from octavo.tokens.chat_template import run_template
from octavo.tokens.template_leash import CPU_S, MEMORY_BYTES, TemplateDone, TemplateJob


def begin(_: bytes) -> Answer:
    return lambda frame: msgspec.msgpack.encode(_done(frame))


def _done(frame: bytes) -> TemplateDone:
    job = msgspec.msgpack.decode(frame, type=TemplateJob)
    try:
        text = run_template(job.source, job.values, job.input_chars)
        text.encode()
        return TemplateDone(text)
    except RequestError as error:
        return TemplateDone(None, error.message)
    except UnicodeEncodeError:
        return TemplateDone(
            None, "The chat template wrote lone surrogates, which are not Unicode characters."
        )
    except MemoryError:
        return TemplateDone(None, "The chat template was stopped: it takes more memory than one request may.")


if __name__ == "__main__":
    serve(begin, cpu_s=CPU_S, memory_bytes=MEMORY_BYTES)
