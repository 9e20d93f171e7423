"""Outcome: what came of checking a wish, as it is cached and as it crosses from a helper process."""

from __future__ import annotations

import hashlib

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.messages.structured import StructuredOutputsParams


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A canonical grammar, or why there is none."""

    canonical: str | None = None
    message: str = ""
    param: str | None = None
    code: str = ErrorCode.INVALID_VALUE.name

    @classmethod
    def refused(cls, error: RequestError) -> Outcome:
        return cls(message=error.message, param=error.param, code=error.code.name)

    @property
    def num_bytes(self) -> int:
        return 256 + len(self.canonical or "") + len(self.message)

    def applied(self, wish: StructuredOutputsParams) -> StructuredOutputsParams:
        """The wish in the one form that the core takes. Raises RequestError for a refused one."""
        if self.canonical is None:
            raise RequestError(self.message, code=ErrorCode[self.code], param=self.param)
        return StructuredOutputsParams(canonical=self.canonical, begin_after=wish.begin_after)


def too_complex(kind: str) -> Outcome:
    """For a wish on which a helper spent all it may."""
    param = f"structured_outputs.{kind}"
    return Outcome(
        message=f"{param} is too complex: compiling it takes more time or memory than one request may. "
        "Make it smaller.",
        param=param,
        code=ErrorCode.UNSUPPORTED_VALUE.name,
    )


def fingerprint(wish: StructuredOutputsParams) -> bytes:
    """Equal for wishes of the same grammar. Raises RequestError for what no message can carry."""
    plain = msgspec.structs.replace(wish, begin_after=None, canonical=None)
    param = f"structured_outputs.{wish.kind}"
    try:
        return hashlib.sha256(msgspec.msgpack.encode(plain)).digest()
    except UnicodeEncodeError:
        raise RequestError(
            f"{param} holds lone surrogates, which are not Unicode characters. Send valid UTF-8 text.",
            param=param,
        ) from None
    except OverflowError:
        raise RequestError(
            f"{param} holds a whole number of more than 64 bits; write smaller ones.", param=param
        ) from None
