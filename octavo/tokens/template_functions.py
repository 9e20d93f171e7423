"""Filters and functions that chat templates may call. Each checks what it is about to build.

They behave as Jinja's and as those that model makers know from transformers; filters that are not
here or among the harmless ones of Jinja are not offered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2.filters import FILTERS
from jinja2.utils import Namespace

from octavo.tokens.template_budget import TemplateLimitError, current_budget

MAX_RANGE = 10_000
MAX_INDENT = 16
_MAX_MARGIN = 256
PERCENT_WIDTH = re.compile(r"%[^a-zA-Z%]*(?:\d{4,}|\*)")
BRACE_WIDTH = re.compile(r"\{[^{}]*\d{4,}|:[^{}]*\{")
_HARMLESS = (
    "abs attr default d dictsort first float groupby int items last length count list map max min reject "
    "rejectattr "
    "reverse round select selectattr sort sum unique"
)
_TEXTUAL = "capitalize e escape lower safe string title trim upper"


def check_width(pattern: re.Pattern[str], form: str) -> None:
    """Refuse formatting that pads to a very large width, or to one computed in the template."""
    if pattern.search(form):
        raise TemplateLimitError("it formatted text with a very large or computed width")


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that turns its value into text, which must not be too long."""

    def limited(value: Any, *args: Any, **kwargs: Any) -> Any:
        current_budget().size_of(value)
        return function(value, *args, **kwargs)

    return limited


def check_join(separator: str, items: list[Any]) -> None:
    budget = current_budget()
    budget.check(budget.size_of(items) + len(separator) * len(items))


def check_replace(text: str, old: str, new: str) -> None:
    current_budget().check(len(text) + (text.count(old) + 1) * len(new))


@jinja2.pass_environment
def _join(environment: jinja2.Environment, value: Any, d: str = "", attribute: Any = None) -> str:
    items = list(value)
    if attribute is not None:
        items = [environment.getitem(item, attribute) for item in items]
    check_join(str(d), items)
    return str(d).join(map(str, items))


def _replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
    current_budget().size_of(s)
    text = str(s)
    check_replace(text, str(old), str(new))
    return text.replace(str(old), str(new), -1 if count is None else count)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    form = str(value)
    check_percent(form, kwargs or args)
    return form % (kwargs or args)


def check_percent(form: str, values: Any) -> None:
    """Refuse `form % values` if it would be too long."""
    check_width(PERCENT_WIDTH, form)
    budget = current_budget()
    budget.check(len(form) + (form.count("%") if isinstance(values, dict) else 1) * budget.size_of(values))


def limit_brace_format(form: str, function: Callable[..., str]) -> Callable[..., str]:
    """A `str.format` that checks before it formats."""

    def limited(*args: Any, **kwargs: Any) -> str:
        check_width(BRACE_WIDTH, form)
        budget = current_budget()
        budget.check(len(form) + form.count("{") * budget.size_of([args, kwargs]))
        return function(*args, **kwargs)

    return limited


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(width, _MAX_MARGIN)
    current_budget().size_of(s)
    lines = str(s).split("\n")
    check_join("\n" + margin, lines)
    head = margin + lines[0] if first and (lines[0] or blank) else lines[0]
    return "\n".join([head, *(margin + line if line or blank else line for line in lines[1:])])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As model makers expect it: nothing escaped for HTML, spaces after separators."""
    if (isinstance(indent, int) and indent > MAX_INDENT) or (
        isinstance(indent, str) and len(indent) > MAX_INDENT
    ):
        raise TemplateLimitError(f"it wrote JSON with an indent over {MAX_INDENT}")
    current_budget().size_of(value)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _range(*arguments: int) -> range:
    numbers = range(*arguments)
    if len(numbers) > MAX_RANGE:
        raise TemplateLimitError(f"it asked for a range of more than {MAX_RANGE} numbers")
    return numbers


def _raise_exception(message: Any) -> None:
    raise jinja2.exceptions.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    check_width(re.compile(r"%\d|.{257}", re.DOTALL), form)
    return datetime.now().strftime(form)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


class _Namespace(Namespace):
    """Refuses names with an underscore in front, which could reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values: dict[Any, Any] = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot have an attribute {name!r}")


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "range": _range,
    "dict": _dict,
    "namespace": _Namespace,
    "raise_exception": _raise_exception,
    "strftime_now": _strftime_now,
}
ALLOWED_FILTERS: Mapping[str, Callable[..., Any]] = {
    **{name: FILTERS[name] for name in _HARMLESS.split()},
    **{name: _checked(FILTERS[name]) for name in _TEXTUAL.split()},
    "format": _format,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "tojson": _tojson,
}
