"""What the tokenizers library raises: bare exceptions, and panics, which are no `Exception` at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from octavo.base.errors import ModelFileError, OctavoError, RequestError

MAX_SAID = 200


def _is_panic(error: BaseException) -> bool:
    # The class cannot be imported: the compiled module makes it.
    return type(error).__name__ == "PanicException"


@contextmanager
def as_file_errors() -> Iterator[None]:
    """While a tokenizer is built: whatever goes wrong, its files are to blame. Raises ModelFileError."""
    try:
        yield
    except OctavoError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        raise ModelFileError(
            f"The model's tokenizer cannot be used: {str(error)[:MAX_SAID]}. Download the model again, or "
            "give a folder or repository with another one as --tokenizer."
        ) from error


@contextmanager
def as_request_errors(param: str = "prompt") -> Iterator[None]:
    """While text of the request's field `param` is encoded or decoded. Raises RequestError."""
    try:
        yield
    except OctavoError:
        raise
    except TypeError as error:
        raise RequestError(
            "The text holds lone surrogates, which are not Unicode characters. Send valid UTF-8 text.",
            param=param,
        ) from error
    except BaseException as error:
        if type(error) is not Exception and not _is_panic(error):
            raise
        raise RequestError(
            f"The model's tokenizer cannot take this: {str(error)[:MAX_SAID]}. Change it.", param=param
        ) from error
