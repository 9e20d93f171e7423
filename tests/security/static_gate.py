"""What shipped code never does: `python tests/security/static_gate.py` says if it does.

No pickle and its kin, nothing that runs text as code, no shell, no YAML that makes objects. No assert as a
check of what comes from outside: one without a reason, or, in the rooms that meet outside input, one that
calls anything but what looks at types and sizes. `-O` removes asserts; nothing may depend on them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "octavo"

MODULES = {"pickle", "_pickle", "cPickle", "marshal", "dill", "cloudpickle", "shelve", "joblib", "telnetlib"}
BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint"}
CALLS = {
    "torch.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
    "yaml.unsafe_load",
    "yaml.full_load",
    "tempfile.mktemp",
}
TRUE_ARGUMENTS = {"shell", "allow_pickle"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "_unique_keys_loader"}
"""The last one is made from SafeLoader, in config/flags.py."""

OUTSIDE_ROOMS = {"server", "engine", "grammar", "tokens", "weights", "config", "messages", "cli", "base"}
ASSERT_CALLS = {"isinstance", "len", "all", "any", "set", "type"}


def offences(source: str, room: str) -> Iterator[tuple[int, str]]:
    """Line and what is wrong there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        elif isinstance(node, ast.Call):
            yield from _calls(node)
        elif isinstance(node, ast.Assert):
            yield from _asserts(node, room)


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    for name in names:
        if name.partition(".")[0] in MODULES:
            yield node.lineno, f"imports {name}"
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if f"{node.module}.{alias.name}" in CALLS:
                yield node.lineno, f"imports {node.module}.{alias.name}"


def _calls(node: ast.Call) -> Iterator[tuple[int, str]]:
    name = _dotted(node.func)
    if name in BUILTINS or name in CALLS:
        yield node.lineno, f"calls {name}"
    if name == "yaml.load" and not _has_safe_loader(node):
        yield node.lineno, "calls yaml.load without a safe loader"
    for argument in node.keywords:
        is_off = isinstance(argument.value, ast.Constant) and not argument.value.value
        if argument.arg in TRUE_ARGUMENTS and not is_off:
            yield node.lineno, f"gives {argument.arg}"


def _has_safe_loader(node: ast.Call) -> bool:
    given = [argument.value for argument in node.keywords if argument.arg == "Loader"] or node.args[1:]
    return any(part in SAFE_LOADERS for value in given for part in ast.unparse(value).strip("()").split("."))


def _asserts(node: ast.Assert, room: str) -> Iterator[tuple[int, str]]:
    calls = {_dotted(part.func) for part in ast.walk(node.test) if isinstance(part, ast.Call)}
    if node.msg is None and room in OUTSIDE_ROOMS and calls:
        yield node.lineno, "asserts without saying why it cannot fail"
    if room in OUTSIDE_ROOMS and calls - ASSERT_CALLS:
        yield node.lineno, "checks by assert; raise an error"


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def main() -> int:
    num_found = num_files = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        num_files += 1
        place = path.relative_to(PACKAGE)
        for line, what in offences(path.read_text(encoding="utf-8"), place.parts[0]):
            num_found += 1
            sys.stdout.write(f"octavo/{place}:{line}: {what}\n")
    sys.stdout.write(f"static gate: {num_files} files, {num_found} offences\n")
    return int(num_found > 0)


if __name__ == "__main__":
    sys.exit(main())
