"""A Jinja environment on a leash: templates come from model files and, if allowed, from requests.

Besides Jinja's own sandbox: bounded source, nesting, work (loop rounds and macro calls), time and size
of every text and list a template builds. Values that cannot be bounded beforehand are not offered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from octavo.base.clock import Clock, monotonic

MAX_SOURCE_CHARS = 256 * 1024
MAX_NESTING = 200
MAX_ROUNDS = 200_000
MAX_RANGE = 10_000
MAX_SECONDS = 2.0
MAX_EXTRA_CHARS = 1 << 20
MAX_NUMBER = 10**15
_CLOCK_EVERY = 64
_PERCENT_WIDTH = re.compile(r"%[^a-zA-Z%]*(?:\d{4,}|\*)")
_BRACE_WIDTH = re.compile(r"\{[^{}]*\d{4,}|:[^{}]*\{")
_UNBOUNDED_FILTERS = (
    "center",
    "wordwrap",
    "pprint",
    "xmlattr",
    "urlize",
    "random",
    "batch",
    "slice",
    "indent",
)
_UNBOUNDED_METHODS = {
    str: frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "translate"}),
    int: frozenset({"to_bytes"}),
}


class TemplateLimitError(Exception):
    """A template asked for more than it may have."""


class Budget:
    """What one rendering may still use."""

    def __init__(self, max_chars: int, clock: Clock = monotonic) -> None:
        self.max_chars = max_chars
        self._rounds = 0
        self._clock = clock
        self._deadline = clock() + MAX_SECONDS

    def tick(self) -> str:
        """Count one loop round or macro call; the empty text goes into the output."""
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise TemplateLimitError(f"it ran more than {MAX_ROUNDS} loop rounds")
        if self._rounds % _CLOCK_EVERY == 0 and self._clock() > self._deadline:
            raise TemplateLimitError(f"it ran longer than {MAX_SECONDS:g} s")
        return ""

    def check_size(self, size: float) -> None:
        if size > self.max_chars:
            raise TemplateLimitError(f"it built more than {self.max_chars} characters")


_budget: ContextVar[Budget] = ContextVar("octavo_template_budget")


def run_limited(budget: Budget, render: Callable[[], Iterable[str]]) -> str:
    """Collect a template's output under `budget`."""
    token = _budget.set(budget)
    try:
        parts, size = [], 0
        for part in render():
            size += len(part)
            budget.check_size(size)
            parts.append(part)
        return "".join(parts)
    finally:
        _budget.reset(token)


def compile_template(source: str) -> jinja2.Template:
    """Compile a template. Raises jinja2.TemplateError or TemplateLimitError."""
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateLimitError(f"it has {len(source)} characters; at most {MAX_SOURCE_CHARS} are allowed")
    try:
        return _ENVIRONMENT.from_string(source)
    except (RecursionError, MemoryError, SyntaxError) as error:
        raise TemplateLimitError(f"it is nested more than {MAX_NESTING} levels deep") from error


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else 1


def _text_size(values: Iterable[Any]) -> int:
    return sum(len(value) if isinstance(value, str) else 32 for value in values)


class _Leash(NodeTransformer):
    """Counts rounds of every loop and calls of every macro, and bounds every joining of texts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._counted(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._counted(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("join_texts", list(node.nodes), node.lineno)

    def _counted(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([_call("tick", [], node.lineno)], lineno=node.lineno))
        assert isinstance(node, nodes.Node), "only nodes are visited"
        return node


def _call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
    target = nodes.EnvironmentAttribute(name, lineno=line)
    return nodes.Call(target, arguments, [], None, None, lineno=line)


class _GenerationTag(jinja2.ext.Extension):
    """{% generation %}: marks what an assistant wrote, for training. Here it is only its body."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with limits. Templates reach `tick` and `join_texts` only through compiled-in calls."""

    intercepted_binops = frozenset({"+", "*", "**", "%", "//"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _check_nesting(tree)
        limited = _Leash().visit(tree)
        assert isinstance(limited, nodes.Template), "the root stays a template"
        return limited

    def tick(self) -> str:
        return _budget.get().tick()

    def join_texts(self, *values: Any) -> str:
        _budget.get().check_size(_text_size(values))
        return "".join(map(str, values))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        if operator == "+":
            budget.check_size(_size(left) + _size(right))
        elif operator == "*":
            times = [value for value in (left, right) if isinstance(value, int)]
            budget.check_size(max(_size(left), _size(right)) * (max(times) if len(times) == 1 else 1))
        elif operator == "**":
            if not isinstance(right, int | float) or abs(right) > 64:
                raise TemplateLimitError("it computed a power with an exponent over 64")
        elif operator == "%" and isinstance(left, str):
            _check_width(_PERCENT_WIDTH, left)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and abs(result) > MAX_NUMBER:
            raise TemplateLimitError("it computed a number that is too large")
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr in _UNBOUNDED_METHODS.get(type(obj), ()):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        owner = getattr(value, "__self__", None)
        if isinstance(owner, str) and getattr(value, "__name__", "") in ("format", "format_map"):
            _check_width(_BRACE_WIDTH, owner)
        return super().wrap_str_format(value)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, getattr(obj, "__name__", ""), args)
        return super().call(context, obj, *args, **kwargs)


def _check_width(pattern: re.Pattern[str], template: str) -> None:
    if pattern.search(template):
        raise TemplateLimitError("it formatted text with a very large or computed width")


def _check_method(owner: str, name: str, args: tuple[Any, ...]) -> None:
    budget = _budget.get()
    if name == "join" and args and isinstance(args[0], list | tuple):
        budget.check_size(_text_size(args[0]) + len(owner) * len(args[0]))
    elif name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        budget.check_size(len(owner) + (owner.count(args[0]) + 1) * len(args[1]))


def _check_nesting(tree: nodes.Template) -> None:
    """Walk without recursion: deep trees are what is looked for."""
    level: list[nodes.Node] = [tree]
    for _ in range(MAX_NESTING):
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise TemplateLimitError(f"it is nested more than {MAX_NESTING} levels deep")


def _filter_join(value: Any, separator: str = "", attribute: Any = None) -> str:
    items = list(value)
    if attribute is not None:
        items = [_ENVIRONMENT.getitem(item, attribute) for item in items]
    _budget.get().check_size(_text_size(items) + len(separator) * len(items))
    return separator.join(map(str, items))


def _filter_replace(text: Any, old: str, new: str, count: int = -1) -> str:
    whole = str(text)
    _budget.get().check_size(len(whole) + (whole.count(old) + 1) * len(new))
    return whole.replace(old, new, count)


def _filter_format(template: Any, *args: Any, **kwargs: Any) -> str:
    form = str(template)
    _check_width(_PERCENT_WIDTH, form)
    return form % (kwargs or args)


def _filter_indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(width, 256)
    lines = str(text).split("\n")
    _budget.get().check_size(_text_size(lines) + len(lines) * len(margin))
    indented = [margin + line if line or blank else line for line in lines[1:]]
    head = margin + lines[0] if first and (lines[0] or blank) else lines[0]
    return "\n".join([head, *indented])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As model makers expect it: nothing escaped for HTML, spaces after separators."""
    if isinstance(indent, int) and indent > 16:
        raise TemplateLimitError("it wrote JSON with an indent over 16")
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    _budget.get().check_size(len(text))
    return text


def _range(*arguments: int) -> range:
    numbers = range(*arguments)
    if len(numbers) > MAX_RANGE:
        raise TemplateLimitError(f"it asked for a range of {len(numbers)} numbers; at most {MAX_RANGE}")
    return numbers


def _raise_exception(message: Any) -> None:
    raise jinja2.exceptions.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form[:256])


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
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


def _make_environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=Undefined,
        cache_size=0,
        extensions=[_GenerationTag, jinja2.ext.loopcontrols],
    )
    for name in _UNBOUNDED_FILTERS:
        environment.filters.pop(name, None)
    filters: Mapping[str, Callable[..., Any]] = {
        "tojson": _tojson,
        "join": _filter_join,
        "replace": _filter_replace,
        "format": _filter_format,
        "indent": _filter_indent,
    }
    environment.filters.update(filters)
    environment.globals.clear()
    environment.globals.update(
        range=_range,
        dict=_new_dict,
        namespace=_Namespace,
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
    )
    return environment


_ENVIRONMENT = _make_environment()
