"""Writes docs/reference/ from the code: routes, options, errors, models. With --check it only compares.

Nothing in those pages is written by hand, and a test fails when they are stale.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import octavo
from octavo.base.errors import ErrorCode, Retry
from octavo.config.root import GROUPS, EngineConfig, OptionSpec, iter_options
from octavo.models.pooled.table import ENCODERS
from octavo.models.table import MODELS
from octavo.server.admin.app import create_admin_app
from octavo.server.app import create_app
from octavo.server.lifecycle import Lifecycle
from octavo.server.openai.schema.fields import IGNORED, UNSUPPORTED
from octavo.tokens.no_tokenizer import NoTokenizer
from octavo.weights.gguf.architectures import ARCHITECTURES

FOLDER = Path(__file__).parent / "reference"
HEAD = "<!-- Written by docs/make_reference.py (`make reference`). Do not edit. -->\n\n"
SAME_MODELS = {"New": "Gte"}
"""Encoders that transformers knows by another name only."""
METHODS = ("get", "post", "delete", "put", "patch")


def main() -> int:
    """Write the pages, or with --check report those that are stale. Returns the exit status."""
    texts = pages()
    stale = [name for name, text in texts.items() if _read(name) != text]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/reference/{name} is stale: run `make reference`.")
        return int(bool(stale))
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(texts[name], encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


def pages() -> dict[str, str]:
    """All pages by file name."""
    return {
        "routes.md": HEAD + routes_page(),
        "options.md": HEAD + options_page(),
        "errors.md": HEAD + errors_page(),
        "models.md": HEAD + models_page(),
    }


def _read(name: str) -> str | None:
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else None


# --- routes ---------------------------------------------------------------------------------------------


def routes_page() -> str:
    public, admin = openapi_pages()
    lines = [
        "# Routes",
        "",
        "What clients reach. `/openapi.json` says the same for programs, `/docs` for people. Bodies are JSON "
        "objects unless a route says otherwise; a field that is left out and one that is null mean the same.",
        "",
        *_route_table(public),
        "## Administrative routes",
        "",
        "Only on the listener of `--admin-port` (see [administration](../features/administration.md)).",
        "",
        *_route_table(admin),
        "## Bodies",
        "",
        *_bodies(public),
        *_bodies(admin),
        "## Fields of generation bodies that are not modelled",
        "",
        "Accepted without effect: " + _names(IGNORED) + ".",
        "",
        "Refused by name, unless their value asks for nothing: " + _names(UNSUPPORTED) + ".",
        "",
        "Any other field is ignored, with one warning per name in the log.",
        "",
    ]
    return "\n".join(lines)


def openapi_pages() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of clients' application and of the administrative one, without a model."""
    config = EngineConfig.from_options({"served_model_name": ["model"], "disable_metrics": True})
    engine: Any = SimpleNamespace(
        config=config,
        rest=None,
        tokenizer=NoTokenizer(0),
        facts=SimpleNamespace(pooling=None),
        add_usage_listener=lambda _: None,
    )
    app = create_app(engine, config.server, config.observe)
    return app.openapi(), create_admin_app(engine, config, Lifecycle()).openapi()


def _route_table(page: dict[str, Any]) -> list[str]:
    by_tag: dict[str, list[str]] = {}
    for path, item in sorted(page["paths"].items()):
        for method in METHODS:
            if method in item:
                tag = item[method].get("tags", ["other"])[0]
                by_tag.setdefault(tag, []).append(_route_row(path, method, item[method]))
    lines = []
    for tag, rows in by_tag.items():
        lines += [f"### {tag}", "", "| route | | body | answer |", "| --- | --- | --- | --- |", *rows, ""]
    return lines


def _route_row(path: str, method: str, operation: dict[str, Any]) -> str:
    query = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]
    shown = path + ("?" + "&".join(query) if query else "")
    content = operation["responses"].get("200", {}).get("content", {})
    answers = [name for kind in content.values() for name in _named(kind.get("schema", {}))]
    bodies = operation.get("requestBody", {}).get("content", {})
    taken = [_schema_name(kind["schema"], linked=True) for kind in bodies.values() if kind.get("schema")]
    route, summary = f"`{method.upper()} {shown}`", operation.get("summary", "")
    return f"| {route} | {summary} | {_unique(taken)} | {_unique(answers)} |"


def _named(schema: Any) -> list[str]:
    """Names of the schemas that an answer is made of, its errors left out."""
    if isinstance(schema, list):
        return [name for item in schema for name in _named(item)]
    if not isinstance(schema, dict):
        return []
    if "$ref" in schema:
        name = _schema_name(schema)
        return [] if "Error" in name else [name]
    return [name for value in schema.values() for name in _named(value)]


def _unique(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(name for name in names if name))


def _schema_name(schema: dict[str, Any], *, linked: bool = False) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f"[{name}](#{name.lower()})" if name and linked else name


def _bodies(page: dict[str, Any]) -> list[str]:
    schemas = page["components"]["schemas"]
    lines = []
    for name in sorted(_reached(page)):
        schema = schemas[name]
        if "properties" not in schema:
            continue
        lines += [f"### {name}", "", schema.get("description", "").split("\n")[0], ""]
        lines += ["| field | type |", "| --- | --- |"]
        required = schema.get("required", [])
        for field, kind in schema["properties"].items():
            lines.append(f"| `{field}`{' (required)' if field in required else ''} | {_type(kind)} |")
        lines.append("")
    return lines


def _reached(page: dict[str, Any]) -> set[str]:
    """Schemas that bodies of requests are made of."""
    schemas = page["components"]["schemas"]
    waiting = [
        operation["requestBody"]
        for item in page["paths"].values()
        for operation in item.values()
        if "requestBody" in operation
    ]
    found: set[str] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                waiting.append(schemas[name])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def _type(schema: dict[str, Any]) -> str:
    """Text such as 'integer', 'list of string', 'string or list of string'."""
    if "$ref" in schema:
        return _schema_name(schema, linked=True)
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            kinds = [_type(kind) for kind in schema[key] if kind.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


# --- options --------------------------------------------------------------------------------------------


def options_page() -> str:
    lines = [
        "# Options",
        "",
        "Of `octavo serve`; of the YAML file of `--config`, without the leading dashes (`max-num-seqs: 8`); "
        "and with underscores as keywords of `LLM(...)`. "
        "'auto' means: chosen for the model and the machine; `octavo explain MODEL` shows what and why. "
        "On the command line whole numbers may end in k, m, g, t (powers of 1000) or K, M, G, T (of 1024); "
        "a file has plain numbers, and leaves out what is to be 'auto'.",
        "",
    ]
    for group, kind in GROUPS.items():
        lines += [f"## {group}", "", (kind.__doc__ or "").split("\n")[0].split(" None means")[0], ""]
        lines += ["| flag | default | meaning |", "| --- | --- | --- |"]
        lines += [_option_row(spec) for spec in iter_options() if spec.group == group and spec.flag]
        lines.append("")
    return "\n".join(lines)


def _option_row(spec: OptionSpec) -> str:
    flags = [f"`--{name.replace('_', '-')}`" for name in spec.names]
    if spec.type in ("bool", "bool | None"):
        flags.append(f"`--no-{spec.name.replace('_', '-')}`")
    meaning = spec.help
    if spec.choices:
        meaning += " One of " + ", ".join(f"`{choice}`" for choice in spec.choices) + "."
    return f"| {', '.join(flags)} | {_default(spec)} | {meaning.replace('|', chr(92) + '|')} |"


def _default(spec: OptionSpec) -> str:
    if spec.default is None and spec.type in ("int | None", "float | None", "bool | None"):
        return "auto"
    if spec.default is None or spec.default in ("", [], {}):
        return "none"
    if isinstance(spec.default, bool):
        return "on" if spec.default else "off"
    return f"`{spec.default}`"


# --- errors ---------------------------------------------------------------------------------------------

RETRIES = {
    Retry.NEVER: "no",
    Retry.LATER: "after the seconds of `Retry-After`",
    Retry.SAFE: "yes",
}


def errors_page() -> str:
    meanings = error_meanings()
    lines = [
        "# Errors",
        "",
        "Every error has one of these codes. On the OpenAI routes it is `error.code` of the body "
        '`{"error": {"message", "type", "param", "code"}}`; other protocols say the same in their own shape. '
        "Once a stream has begun, an error is its last event. `message` says what happened, what is allowed "
        "and what to do; `param` names the field at fault.",
        "",
        "| code | status | type | send it again? | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for member in sorted(ErrorCode, key=lambda member: (member.value.status, member.value.code)):
        kind, meaning = member.value, meanings[member.name]
        lines.append(f"| `{kind.code}` | {kind.status} | `{kind.type}` | {RETRIES[kind.retry]} | {meaning} |")
    return "\n".join([*lines, ""])


def error_meanings() -> dict[str, str]:
    """The text under each member of ErrorCode."""
    (tree,) = ast.parse(inspect.getsource(ErrorCode)).body
    assert isinstance(tree, ast.ClassDef)
    meanings = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and isinstance(following, ast.Expr):
            assert isinstance(statement.targets[0], ast.Name)
            # In one line, as a row of a table has to be.
            meanings[statement.targets[0].id] = " ".join(str(ast.literal_eval(following.value)).split())
    missing = [member.name for member in ErrorCode if member.name not in meanings]
    assert not missing, f"Say under these errors in octavo/base/errors.py what they mean: {missing}"
    return meanings


# --- models ---------------------------------------------------------------------------------------------

ROOT = Path(octavo.__file__).parents[1]


def models_page() -> str:
    families, fallback = _cases("families.py", "FAMILIES"), _cases("fallback.py", "FALLBACK")
    own = _by_architecture(families)
    missing = [name for name in MODELS if name not in own]
    assert not missing, f"Add a case to tests/conformance/families.py for {missing}"
    theirs = {name: cases for name, cases in _by_architecture(fallback).items() if name not in MODELS}
    lines = [
        "# Models",
        "",
        "`octavo explain MODEL` says of any model who computes it here, and why. Every line below is shown "
        "by the cases that it names: a tiny random checkpoint in float32 whose tokens and log-probabilities "
        "are equal to transformers', with chunked prompts, hits in the prefix cache and preemption.",
        "",
        "## Octavo's own",
        "",
        "Cases of `tests/conformance/families.py`.",
        "",
        "| architecture | file | GGUF | cases |",
        "| --- | --- | --- | --- |",
        *(_own_row(name, own[name]) for name in sorted(MODELS)),
        "",
        *_pooled_lines(),
        "## Through transformers",
        "",
        "What is not in the table above runs as transformers' own modules on Octavo's paged attention, "
        "products and norms, if it can: any causal language model of the installed transformers whose tokens "
        "meet in attention only. These are tested, by cases of `tests/conformance/fallback.py`; others are "
        "tried when they are loaded. `--model-impl transformers` sends the architectures above this way too.",
        "",
        "| architecture | cases |",
        "| --- | --- |",
        *(f"| `{name}` | {_listed(theirs[name])} |" for name in sorted(theirs)),
        "",
        "## Refused, with the reason",
        "",
        "What cannot run in this second way, one for each reason that is tested. Some of these architectures "
        "are Octavo's own and run in the first.",
        "",
        "| what | a model type that has it | the message says |",
        "| --- | --- | --- |",
    ]
    for what, (model_type, _, words) in _cases("fallback.py", "REFUSED").items():
        lines.append(f"| {what} | `{model_type}` | {words} |")
    return "\n".join([*lines, ""])


def _pooled_lines() -> list[str]:
    """Models that answer with embeddings or scores."""
    encoders, decoders = _cases("pooled.py", "ENCODERS"), _cases("pooled.py", "DECODERS")
    rows = []
    for name in sorted(ENCODERS):
        file = ENCODERS.module(name).replace(".", "/") + ".py"
        shown = SAME_MODELS.get(name, name).lower()
        own = [case for case, (kind, _) in encoders.items() if re.sub("[-_]", "", kind) == shown]
        assert own, f"Add a case to tests/conformance/pooled.py for {name}"
        names = f"`{name}Model`, `{name}ForSequenceClassification`"
        rows.append(f"| {names} | [{file}](../../{file}) | {_gguf(f'{name}Model')} | {_listed(own)} |")
    return [
        "## Pooled: embeddings and scores",
        "",
        "Cases of `tests/conformance/pooled.py`: hidden states, embeddings and scores equal transformers' "
        "within 1e-5, alone and in a crowd. Every decoder of Octavo's own can be pooled too, as `...Model` "
        "(`...TextModel`), as `...ForSequenceClassification`, or with `--runner pooling`: shown for all "
        f"cases above, and for {_listed(list(decoders))} also in chunks and from the prefix cache. Those "
        "that write through transformers (below) embed with `--runner pooling`. From GGUF files encoders "
        "and EmbeddingGemma (`gemma-embedding`) embed; those that score are refused, because such files "
        "lack a layer of the head.",
        "",
        "| architectures | file | GGUF | cases |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]


def _cases(file: str, table: str) -> dict[str, Any]:
    """A table of tests/conformance/."""
    sys.path.insert(0, str(ROOT))
    try:
        module = importlib.import_module(f"tests.conformance.{file.removesuffix('.py')}")
    finally:
        sys.path.remove(str(ROOT))
    cases: dict[str, Any] = getattr(module, table)
    return cases


def _by_architecture(cases: dict[str, Any]) -> dict[str, list[str]]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found: dict[str, list[str]] = {}
    for case, (model_type, *_) in cases.items():
        found.setdefault(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type], []).append(case)
    return found


def _own_row(name: str, cases: list[str]) -> str:
    file = MODELS.module(name).replace(".", "/") + ".py"
    return f"| `{name}` | [{file}](../../{file}) | {_gguf(name)} | {_listed(cases)} |"


def _gguf(name: str) -> str:
    """What GGUF files of this class call themselves."""
    found = [key for key, entry in ARCHITECTURES.items() if name in (entry.class_name, *entry.other_classes)]
    return ", ".join(f"`{key}`" for key in found)


def _listed(cases: list[str]) -> str:
    return "; ".join(cases)


assert set(GROUPS) == {field.name for field in dataclasses.fields(EngineConfig)}, "every group has a page"

if __name__ == "__main__":
    sys.exit(main())
