"""A Jinja environment on a leash: templates come from model files and, if allowed, from requests.

Besides Jinja's own sandbox: bounded source and nesting; every loop round, macro call and piece of output
is counted, every operation that could grow text is checked first. Calls for that are compiled into the
template, where it cannot reach them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from octavo.tokens.template_budget import TemplateLimitError, current_budget
from octavo.tokens.template_functions import (
    ALLOWED_FILTERS,
    FUNCTIONS,
    check_join,
    check_percent,
    check_replace,
    limit_brace_format,
)

MAX_SOURCE_CHARS = 256 * 1024
MAX_NESTING = 200
MAX_NUMBER = 10**15
MAX_EXPONENT = 64
_UNBOUNDED_METHODS = {
    str: frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "translate"}),
    int: frozenset({"to_bytes"}),
}


def compile_template(source: str) -> jinja2.Template:
    """Compile a template. Raises jinja2.TemplateError or TemplateLimitError."""
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateLimitError(f"it has {len(source)} characters; at most {MAX_SOURCE_CHARS} are allowed")
    try:
        return _ENVIRONMENT.from_string(source)
    except (RecursionError, MemoryError, SyntaxError) as error:
        raise TemplateLimitError(f"it is nested more than {MAX_NESTING} levels deep") from error


def string_constants(source: str) -> frozenset[str]:
    """All strings within a template's expressions. Raises as `compile_template`."""
    compile_template(source)
    found = _ENVIRONMENT.parse(source).find_all(nodes.Const)
    return frozenset(node.value for node in found if isinstance(node.value, str))


class _Leash(NodeTransformer):
    """Compiles the counting into a template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._counted(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._counted(node)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        line = node.lineno
        written: list[nodes.Expr] = []
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                written += [_call("count_chars", [nodes.Const(len(part.data))], line), part]
            else:
                written.append(_call("count_value", [part], line))
        node.nodes = written
        return node

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
    """The sandbox with limits."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _check_nesting(tree)
        limited = _Leash().visit(tree)
        assert isinstance(limited, nodes.Template), "the root stays a template"
        return limited

    def tick(self) -> str:
        current_budget().tick()
        return ""

    def count_chars(self, num_chars: int) -> str:
        current_budget().write(num_chars)
        return ""

    def count_value(self, value: Any) -> Any:
        budget = current_budget()
        budget.write(budget.size_of(value))
        return value

    def join_texts(self, *values: Any) -> str:
        check_join("", list(values))
        return "".join(map(str, values))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = current_budget()
        if operator == "+" and not isinstance(left, int | float):
            budget.check(budget.size_of(left) + budget.size_of(right))
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**" and not (isinstance(right, int | float) and abs(right) <= MAX_EXPONENT):
            raise TemplateLimitError(f"it computed a power with an exponent over {MAX_EXPONENT}")
        elif operator == "%" and isinstance(left, str):
            check_percent(left, right)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and abs(result) > MAX_NUMBER:
            raise TemplateLimitError("it computed a number that is too large")
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr in _UNBOUNDED_METHODS.get(type(obj), ()):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        function = super().wrap_str_format(value)
        return None if function is None else limit_brace_format(value.__self__, function)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name == "join" and args:
            args = (list(args[0]), *args[1:])
            check_join(owner, args[0])
        elif isinstance(owner, str) and name == "replace" and len(args) >= 2:
            check_replace(owner, str(args[0]), str(args[1]))
        return super().call(context, obj, *args, **kwargs)


def _check_product(left: Any, right: Any) -> None:
    """A text or list times a number: as long as both say."""
    budget = current_budget()
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            budget.check(budget.size_of(value) * times)


def _check_nesting(tree: nodes.Template) -> None:
    """Walk without recursion: deep trees are what is looked for."""
    level: list[nodes.Node] = [tree]
    for _ in range(MAX_NESTING):
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise TemplateLimitError(f"it is nested more than {MAX_NESTING} levels deep")


def _make_environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=0,
        extensions=[_GenerationTag, jinja2.ext.loopcontrols],
    )
    environment.filters.clear()
    environment.filters.update(ALLOWED_FILTERS)
    environment.globals.clear()
    environment.globals.update(FUNCTIONS)
    return environment


_ENVIRONMENT = _make_environment()
