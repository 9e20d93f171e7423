"""The form that a body wants for its answer, and how to speak of it in the body's own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.messages.structured import StructuredOutputsParams
from octavo.server.errors import quoted
from octavo.server.openai.schema.forms import FormBody, ResponseFormat, StructuredOutputs

GUIDED = ("json", "regex", "choice", "grammar")
FORMAT_TYPES = "text, json_object, json_schema or structural_tag"


@dataclass(frozen=True, kw_only=True)
class Form:
    """A wish, and where its parts stand in the body."""

    wish: StructuredOutputsParams
    origins: Mapping[str, str] = field(default_factory=dict)
    """Beginning of a parameter's name as the engine knows it -> as the caller does."""


def wanted_form(body: FormBody) -> Form | None:
    """What the body asks for, checked in shape. None: any text."""
    found: list[tuple[str, Form]] = []
    if body.response_format is not None:
        form = _of_response_format(body.response_format)
        found += [("response_format", form)] if form is not None else []
    if body.structured_outputs is not None:
        found.append(("structured_outputs", Form(wish=_of_structured_outputs(body.structured_outputs))))
    for kind in GUIDED:
        value = getattr(body, f"guided_{kind}")
        if value is not None:
            found.append((f"guided_{kind}", _of_guided(kind, value, body.guided_whitespace_pattern)))
    if len(found) > 1:
        names = [name for name, _ in found]
        raise RequestError(
            f"{' and '.join(names)} both say what form the answer has; give one of them.", param=names[1]
        )
    if not found:
        return None
    form = found[0][1]
    in_callers_words(form.origins, form.wish.check)
    return form


def in_callers_words(origins: Mapping[str, str], check: Callable[[], object]) -> None:
    """Run a check; what it says of a parameter is said of the caller's field."""
    try:
        check()
    except RequestError as error:
        raise renamed(error, origins) from None


def renamed(error: RequestError, origins: Mapping[str, str]) -> RequestError:
    """The same error about the field that the caller wrote."""
    param = error.param or ""
    fitting = [name for name in origins if param.startswith(name)]
    if not fitting:
        return error
    name = max(fitting, key=len)
    theirs = origins[name] + param.removeprefix(name)
    return RequestError(error.message.replace(param, theirs), code=error.code, param=theirs)


def _of_response_format(wanted: ResponseFormat) -> Form | None:
    if wanted.type == "text":
        return None
    if wanted.type == "json_object":
        if wanted.schema_ is None:
            return _form(StructuredOutputsParams(json_object=True), "json_object", "response_format")
        return _form(StructuredOutputsParams(json=wanted.schema_), "json", "response_format.schema")
    if wanted.type == "json_schema":
        schema = None if wanted.json_schema is None else wanted.json_schema.schema_
        if schema is None:
            raise RequestError(
                "response_format.json_schema.schema is missing; it must be a JSON schema.",
                param="response_format.json_schema.schema",
            )
        return _form(StructuredOutputsParams(json=schema), "json", "response_format.json_schema.schema")
    if wanted.type == "structural_tag":
        tag = {name: getattr(wanted, name) for name in ("format", "structures", "triggers")}
        said = {name: value for name, value in tag.items() if value is not None}
        return _form(StructuredOutputsParams(structural_tag=said), "structural_tag", "response_format")
    raise RequestError(
        f"response_format.type is {quoted(wanted.type)}; it must be {FORMAT_TYPES}.",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param="response_format.type",
    )


def _of_structured_outputs(wanted: StructuredOutputs) -> StructuredOutputsParams:
    return StructuredOutputsParams(
        json=wanted.json_,
        regex=wanted.regex,
        choice=wanted.choice,
        grammar=wanted.grammar,
        json_object=wanted.json_object,
        structural_tag=wanted.structural_tag,
        disable_any_whitespace=bool(wanted.disable_any_whitespace),
        disable_additional_properties=bool(wanted.disable_additional_properties),
        whitespace_pattern=wanted.whitespace_pattern,
    )


def _of_guided(kind: str, value: Any, whitespace_pattern: str | None) -> Form:
    wish = StructuredOutputsParams(**{kind: value}, whitespace_pattern=whitespace_pattern)
    form = _form(wish, kind, f"guided_{kind}")
    spaces = {"structured_outputs.whitespace_pattern": "guided_whitespace_pattern"}
    return Form(wish=form.wish, origins={**form.origins, **spaces})


def _form(wish: StructuredOutputsParams, kind: str, origin: str) -> Form:
    return Form(wish=wish, origins={f"structured_outputs.{kind}": origin})
