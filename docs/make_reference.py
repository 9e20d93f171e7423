"""Writes docs/reference/ from the code. With --check it only compares.

Nothing in those pages is written by hand, and a test fails when they are stale.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

import octavo
from octavo.base.errors import ErrorCode, Retry
from octavo.cli.sampling import _NUMBERS, _TEXTS
from octavo.config.root import GROUPS, EngineConfig, OptionSpec, iter_options
from octavo.models.pooled.table import ENCODERS
from octavo.models.table import MODELS
from octavo.observe.metric_table import (
    BASE_LABELS,
    FINISH_REASONS,
    HTTP_METHODS,
    HTTP_REQUESTS,
    METRICS,
    OTHER,
    REJECTION_REASONS,
    MetricSpec,
)
from octavo.observe.tenant_metrics import MAX_NAMES, TENANT_METRICS
from octavo.server.admin.app import create_admin_app
from octavo.server.app import create_app
from octavo.server.body import Body
from octavo.server.lifecycle import Lifecycle
from octavo.server.openai.schema.fields import IGNORED, UNSUPPORTED
from octavo.tokens.no_tokenizer import NoTokenizer
from octavo.weights.gguf.architectures import ARCHITECTURES

FOLDER = Path(__file__).parent / "reference"
HEAD = "<!-- Written by docs/make_reference.py (`make reference`). Do not edit. -->\n\n"
JSON = "application/json"
STREAMS = ("text/event-stream", "application/x-ndjson")
ERRORS = ("ErrorReply", "ErrorDetail", "OllamaError", "TgiError", "StreamError")
HEADINGS = {
    "openai": "OpenAI: chat, completions, models",
    "responses": "OpenAI: responses",
    "files": "OpenAI: files",
    "batches": "OpenAI: batches",
    "pooling": "Embeddings, scores and labels",
    "anthropic": "Anthropic",
    "ollama": "Ollama",
    "tgi": "Text Generation Inference",
    "sagemaker": "Amazon SageMaker",
    "tokens": "Tokens",
    "health": "Health",
    "info": "The server and its load",
    "requests": "Requests",
    "rest": "Pause and sleep",
    "observe": "Looking and measuring",
}
"""What routes of each tag are about, in this order."""
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
        "metrics.md": HEAD + metrics_page(),
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
        "objects unless a route says otherwise; a field that is left out and one that is null mean the same. "
        "What is GET is also HEAD. Any route may answer with an [error](errors.md).",
        "",
        *_route_table(public),
        "## Administrative routes",
        "",
        "Only on the listener of `--admin-port` (see [administration](../features/administration.md)).",
        "",
        *_route_table(admin),
        "## Bodies",
        "",
        "[Sampling](../features/sampling.md) tells more of the fields that choose tokens.",
        "",
        *_objects(public, _reached(public, _bodies_of)),
        *_objects(admin, _reached(admin, _bodies_of)),
        "## Answers",
        "",
        "JSON objects; of a stream, the data of one event or line.",
        "",
        *_objects(public, _reached(public, _answers_of) - _reached(public, _bodies_of)),
        *_objects(admin, _reached(admin, _answers_of) - _reached(admin, _bodies_of)),
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
                (tag,) = item[method]["tags"]
                by_tag.setdefault(tag, []).append(_route_row(path, method, item[method]))
    lines = []
    for tag in (tag for tag in HEADINGS if tag in by_tag):
        heading = [f"### {HEADINGS[tag]}", "", "| route | | body | answer |", "| --- | --- | --- | --- |"]
        lines += [*heading, *by_tag.pop(tag), ""]
    assert not by_tag, f"Add headings for {list(by_tag)}"
    return lines


def _route_row(path: str, method: str, operation: dict[str, Any]) -> str:
    query = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]
    shown = path + ("?" + "&".join(query) if query else "")
    content = operation["responses"].get("200", {}).get("content", {})
    whole = ", ".join(
        filter(None, (_told(name, kind) for name, kind in content.items() if name not in STREAMS))
    )
    parts = ", ".join(_told(name, kind) for name, kind in content.items() if name in STREAMS)
    bodies = operation.get("requestBody", {}).get("content", {})
    taken = ", ".join(_told(name, kind) for name, kind in bodies.items())
    answers = "; streamed: ".join(filter(None, [whole, parts]))
    return f"| `{method.upper()} {shown}` | {operation.get('summary', '')} | {taken} | {answers} |"


def _told(media_type: str, kind: dict[str, Any]) -> str:
    """What it is made of, or for what is no object of ours, of which type it is."""
    return _links(kind.get("schema", {})) or ("" if media_type == JSON else f"`{media_type}`")


def _links(schema: Any) -> str:
    """To all objects that something is made of, its errors left out."""
    return ", ".join(dict.fromkeys(f"[{name}](#{name.lower()})" for name in _named(schema)))


def _named(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in _named(item)]
    if not isinstance(schema, dict):
        return []
    if "$ref" in schema:
        name = _schema_name(schema)
        return [] if "Error" in name else [name]
    return [name for value in schema.values() for name in _named(value)]


def _schema_name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _objects(page: dict[str, Any], names: set[str]) -> list[str]:
    schemas, lines = page["components"]["schemas"], []
    for name in sorted(names):
        schema, meanings = schemas[name], field_meanings(name)
        about = " ".join(schema.get("description", "").split("\n\n")[0].split())
        lines += [f"### {name}", "", about, ""]
        if not schema.get("properties"):
            continue
        required = schema.get("required", []) if name.endswith("Body") else []
        lines += ["| field | type | |", "| --- | --- | --- |"]
        for field, kind in schema["properties"].items():
            needed = " (required)" if field in required else ""
            lines.append(f"| `{field}`{needed} | {_type(kind)} | {meanings.get(field, '')} |")
        lines.append("")
    return lines


def _bodies_of(operation: dict[str, Any]) -> Any:
    return operation.get("requestBody")


def _answers_of(operation: dict[str, Any]) -> Any:
    return operation["responses"].get("200")


def _reached(page: dict[str, Any], part: Callable[[dict[str, Any]], Any]) -> set[str]:
    """Schemas that this part of all operations is made of, without those of errors, which have a page."""
    schemas = page["components"]["schemas"]
    waiting = [part(operation) for item in page["paths"].values() for operation in item.values()]
    found: set[str] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name = _schema_name(value)
            if name and name not in found and not name.endswith(ERRORS):
                found.add(name)
                waiting.append(schemas[name])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def field_meanings(name: str) -> dict[str, str]:
    """By field: the text under it in the class of this name, else what the command line says of it."""
    meanings = {field: f"{text}." for field, (_, text) in {**_NUMBERS, **_TEXTS}.items()}
    kinds = [kind for base in (Body, msgspec.Struct) for kind in _below(base) if kind.__name__ == name]
    for parent in reversed(kinds[0].__mro__) if kinds else ():
        if parent.__module__.startswith("octavo."):
            meanings |= _texts_under_fields(parent)
    return meanings


def _below(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        if child.__module__.startswith("octavo.server."):
            yield child
        yield from _below(child)


def _texts_under_fields(kind: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        statement.target.id: " ".join(str(ast.literal_eval(following.value)).split()).replace("|", r"\|")
        for statement, following in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
    }


def _type(schema: dict[str, Any]) -> str:
    """Text such as 'integer', 'list of string', 'string or list of string'."""
    if "$ref" in schema:
        return _links(schema) or "an error"
    if "enum" in schema:
        return " or ".join(_value(value) for value in schema["enum"])
    if "const" in schema:
        return _value(schema["const"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            kinds = [_type(kind) for kind in schema[key] if kind.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _value(value: Any) -> str:
    return f"`{value}`" if value != "" else '`""`'


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


# --- metrics --------------------------------------------------------------------------------------------


def metrics_page() -> str:
    prefix = next(spec.default for spec in iter_options() if spec.name == "metrics_prefix")
    base = _names(BASE_LABELS)
    tenant_labels = (*BASE_LABELS, *TENANT_METRICS[0].labels)
    return "\n".join(
        [
            "# Metrics",
            "",
            "What `GET /metrics` shows, in Prometheus' text format, or in OpenMetrics for who asks for it. "
            f"`--metrics-prefix` changes the prefix `{prefix}`, `--disable-metrics` switches the route off. "
            "Counters count from the start of the server. A histogram has the series `_bucket`, `_sum` and "
            "`_count`; durations are those of a monotonic clock. Where keys have the scopes of a key file, "
            "the route asks for one with `admin` (see [tenants](../features/tenants.md)).",
            "",
            "## The engine and its requests",
            "",
            f"All have the labels {base}; further ones are named.",
            "",
            *_metric_table(METRICS, prefix),
            "## Tenants",
            "",
            f"With a key file. The labels are {_names(tenant_labels)}; the first {MAX_NAMES} names of the "
            f"file have series of their own, the others share `{OTHER}`.",
            "",
            *_metric_table(TENANT_METRICS, prefix),
            "## HTTP",
            "",
            "Has no prefix, and its own labels only.",
            "",
            *_metric_table((HTTP_REQUESTS,), ""),
            "## Values of labels",
            "",
            f"What is none of these is counted as `{OTHER}`, so labels do not grow with traffic.",
            "",
            "| label | values |",
            "| --- | --- |",
            f"| `finished_reason` | {_in_order(FINISH_REASONS)} |",
            f"| `reason` | {_in_order(REJECTION_REASONS)}: codes of [errors](errors.md) |",
            f"| `method` | {_in_order(HTTP_METHODS)} |",
            "| `handler` | paths of [routes](routes.md) as they are written there |",
            "| `status` | `1xx` to `5xx` |",
            "",
            "## The process",
            "",
            "`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`, "
            "`process_open_fds`, `process_max_fds` and `process_start_time_seconds`, on Linux: those of the "
            "server, without the core's.",
            "",
        ]
    )


def _metric_table(specs: tuple[MetricSpec, ...], prefix: str) -> list[str]:
    rows = [
        f"| `{prefix}{_exposed(spec)}` | {spec.kind} | {spec.unit} | {_further_labels(spec)} | {spec.help} |"
        for spec in specs
    ]
    return ["| name | type | unit | further labels | what |", "| --- | --- | --- | --- | --- |", *rows, ""]


def _exposed(spec: MetricSpec) -> str:
    """The name as Prometheus stores it."""
    return spec.name + "_total" if spec.kind == "counter" else spec.name


def _further_labels(spec: MetricSpec) -> str:
    return "" if spec in TENANT_METRICS else _in_order(spec.labels)


def _in_order(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


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
