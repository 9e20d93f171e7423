"""The closed catalogue of errors and the few exception classes that carry them.

A message says what happened, what is allowed and what to do. It never holds a path of the server,
an object's repr or a Python exception's text unless that is what the user has to see.

    OctavoError
    ├── RequestError      the caller's request is wrong (HTTP 4xx)
    ├── ConfigError       an option of the engine is wrong (refuses to start)
    ├── ModelFileError    a checkpoint is broken, unsafe or not supported (refuses to load)
    └── EngineError       the engine could not do what it promised (HTTP 5xx)
        └── DeviceOutOfMemory   a step was too large for the device (the core tries smaller ones)
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
    BODY_REQUIRED = ErrorKind("body_required", 400, "invalid_request_error", Retry.NEVER)
    INVALID_UTF8 = ErrorKind("invalid_utf8", 400, "invalid_request_error", Retry.NEVER)
    TOO_DEEP = ErrorKind("too_deep", 400, "invalid_request_error", Retry.NEVER)
    INVALID_VALUE = ErrorKind("invalid_value", 400, "invalid_request_error", Retry.NEVER)
    UNSUPPORTED_VALUE = ErrorKind("unsupported_value", 400, "invalid_request_error", Retry.NEVER)
    CONTEXT_LENGTH = ErrorKind("context_length_exceeded", 400, "invalid_request_error", Retry.NEVER)
    TEMPLATE_FAILED = ErrorKind("template_failed", 400, "invalid_request_error", Retry.NEVER)
    UNAUTHENTICATED = ErrorKind("invalid_api_key", 401, "authentication_error", Retry.NEVER)
    NOT_FOUND = ErrorKind("not_found", 404, "not_found_error", Retry.NEVER)
    MODEL_NOT_FOUND = ErrorKind("model_not_found", 404, "not_found_error", Retry.NEVER)
    METHOD_NOT_ALLOWED = ErrorKind("method_not_allowed", 405, "invalid_request_error", Retry.NEVER)
    REQUEST_TIMEOUT = ErrorKind("request_timeout", 408, "timeout_error", Retry.SAFE)
    BODY_TOO_LARGE = ErrorKind("body_too_large", 413, "invalid_request_error", Retry.NEVER)
    MEDIA_TYPE = ErrorKind("unsupported_media_type", 415, "invalid_request_error", Retry.NEVER)
    OVERLOADED = ErrorKind("overloaded", 503, "overloaded_error", Retry.LATER)
    SHUTTING_DOWN = ErrorKind("shutting_down", 503, "overloaded_error", Retry.LATER)
    NOT_READY = ErrorKind("not_ready", 503, "overloaded_error", Retry.LATER)
    ENGINE_FAILED = ErrorKind("engine_failed", 500, "server_error", Retry.SAFE)
    INTERNAL = ErrorKind("internal_error", 500, "server_error", Retry.SAFE)


class OctavoError(Exception):
    """Root of all errors we raise on purpose."""

    default_code: ErrorCode = ErrorCode.INTERNAL

    def __init__(self, message: str, *, code: ErrorCode | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param


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
