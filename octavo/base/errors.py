"""The closed catalogue of errors and the few exception classes that carry them.

A message says what happened, what is allowed and what to do. It never holds a path of the server,
an object's repr or a Python exception's text unless that is what the user has to see.

    OctavoError
    ├── RequestError      the caller's request is wrong (HTTP 4xx)
    ├── ConfigError       an option of the engine is wrong (refuses to start)
    ├── ModelFileError    a checkpoint is broken, unsafe or not supported (refuses to load)
    └── EngineError       the engine could not do what it promised (HTTP 5xx)
        ├── DeviceOutOfMemory   a step was too large for the device (the core tries smaller ones)
        └── DeviceBroken        the device is lost to this process (the core is started again)
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple


class Retry(StrEnum):
    """Whether sending the same request again can help."""

    NEVER = "never"
    LATER = "later"  # after Retry-After
    SAFE = "safe"  # at once, nothing was generated


class ErrorKind(NamedTuple):
    code: str
    status: int
    type: str
    retry: Retry


class ErrorCode(Enum):
    """Every error a client can meet. `server/` turns the kind into the API's error shape."""

    JSON_INVALID = ErrorKind("json_invalid", 400, "invalid_request_error", Retry.NEVER)
    """The body is not one JSON object."""
    BODY_REQUIRED = ErrorKind("body_required", 400, "invalid_request_error", Retry.NEVER)
    """The route needs a body and got none."""
    INVALID_UTF8 = ErrorKind("invalid_utf8", 400, "invalid_request_error", Retry.NEVER)
    """The body is not UTF-8."""
    TOO_DEEP = ErrorKind("too_deep", 400, "invalid_request_error", Retry.NEVER)
    """The body is nested too deep."""
    HTTP_INVALID = ErrorKind("http_invalid", 400, "invalid_request_error", Retry.NEVER)
    """What came is not HTTP/1.1; the connection is closed."""
    INVALID_VALUE = ErrorKind("invalid_value", 400, "invalid_request_error", Retry.NEVER)
    """A value is missing, of the wrong type or outside what is allowed; `param` names it."""
    UNSUPPORTED_VALUE = ErrorKind("unsupported_value", 400, "invalid_request_error", Retry.NEVER)
    """A value means something, but this server cannot do it."""
    CONTEXT_LENGTH = ErrorKind("context_length_exceeded", 400, "invalid_request_error", Retry.NEVER)
    """Prompt and answer together are longer than the model's context."""
    TEMPLATE_FAILED = ErrorKind("template_failed", 400, "invalid_request_error", Retry.NEVER)
    """The chat template refused the conversation, or the model has none."""
    UNAUTHENTICATED = ErrorKind("invalid_api_key", 401, "authentication_error", Retry.NEVER)
    """The key is missing or wrong."""
    FORBIDDEN = ErrorKind("forbidden", 403, "permission_error", Retry.NEVER)
    """The key does not open this, or the administrative listener was asked by a web page or, without a key,
    from another machine."""
    NOT_FOUND = ErrorKind("not_found", 404, "not_found_error", Retry.NEVER)
    """There is no such route or thing."""
    MODEL_NOT_FOUND = ErrorKind("model_not_found", 404, "not_found_error", Retry.NEVER)
    """No model is served under this name."""
    METHOD_NOT_ALLOWED = ErrorKind("method_not_allowed", 405, "invalid_request_error", Retry.NEVER)
    """The route exists, but not for this method; the Allow header lists those it has."""
    REQUEST_TIMEOUT = ErrorKind("request_timeout", 408, "timeout_error", Retry.SAFE)
    """The headers or the body did not arrive in time."""
    BODY_TOO_LARGE = ErrorKind("body_too_large", 413, "invalid_request_error", Retry.NEVER)
    """The body, or a file in it, is larger than the server takes."""
    STORAGE_FULL = ErrorKind("storage_full", 413, "invalid_request_error", Retry.NEVER)
    """What this key may store is used up: delete something first."""
    URI_TOO_LONG = ErrorKind("uri_too_long", 414, "invalid_request_error", Retry.NEVER)
    """The URL is longer than the server takes; the connection is closed."""
    MEDIA_TYPE = ErrorKind("unsupported_media_type", 415, "invalid_request_error", Retry.NEVER)
    """The body's Content-Type is not one that the route reads."""
    HEADERS_TOO_LARGE = ErrorKind("headers_too_large", 431, "invalid_request_error", Retry.NEVER)
    """The headers are larger than the server takes; the connection is closed."""
    RATE_LIMITED = ErrorKind("rate_limit_exceeded", 429, "rate_limit_error", Retry.LATER)
    """This key has used what it may use of requests or tokens per minute, or of requests at a time."""
    OVERLOADED = ErrorKind("overloaded", 503, "overloaded_error", Retry.LATER)
    """The queue is full, or there are too many connections."""
    SHUTTING_DOWN = ErrorKind("shutting_down", 503, "overloaded_error", Retry.LATER)
    """The server is ending; send the request to another one."""
    NOT_READY = ErrorKind("not_ready", 503, "overloaded_error", Retry.LATER)
    """The model is still being loaded, or the engine does not work."""
    PAUSED = ErrorKind("paused", 503, "overloaded_error", Retry.LATER)
    """An operator paused the server."""
    ASLEEP = ErrorKind("asleep", 503, "overloaded_error", Retry.LATER)
    """An operator put the model to sleep."""
    DEADLINE_EXCEEDED = ErrorKind("deadline_exceeded", 504, "timeout_error", Retry.SAFE)
    """The time that the request, or the server for all, allowed was over before the answer was complete."""
    STORAGE_FAILED = ErrorKind("storage_failed", 507, "server_error", Retry.LATER)
    """The server cannot write to its disk, which may be full."""
    ENGINE_FAILED = ErrorKind("engine_failed", 500, "server_error", Retry.SAFE)
    """The engine could not finish the answer."""
    ENGINE_RESTARTED = ErrorKind("engine_restarted", 503, "server_error", Retry.LATER)
    """The engine broke down while it worked on this request, and is started again."""
    INTERNAL = ErrorKind("internal_error", 500, "server_error", Retry.SAFE)
    """The server met an error of its own; its log says more."""


class OctavoError(Exception):
    """Root of all errors we raise on purpose."""

    default_code: ErrorCode = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """retry_after_s: when another try makes sense, where that is known."""
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after_s = retry_after_s


class RequestError(OctavoError, ValueError):
    """The caller's request is wrong; nothing was spent on it. `param` names the culprit."""

    default_code = ErrorCode.INVALID_VALUE


class ConfigError(OctavoError, ValueError):
    """An option of the engine is wrong or cannot be met here. `param` names the option."""

    default_code = ErrorCode.INVALID_VALUE


class ModelFileError(OctavoError, ValueError):
    """A checkpoint is broken, unsafe or not supported."""

    default_code = ErrorCode.UNSUPPORTED_VALUE


class EngineError(OctavoError, RuntimeError):
    """The engine could not do what it promised; the request may be sent again."""

    default_code = ErrorCode.ENGINE_FAILED


class DeviceOutOfMemory(EngineError):
    """The device has no memory for a step. Raised by executors; the step produced nothing for anybody."""


class DeviceBroken(EngineError):
    """The device answers nothing any more in this process. Raised by executors; no request is to blame."""
