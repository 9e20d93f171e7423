"""docs/reference/ says what the code says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from octavo.base.errors import ErrorCode
from octavo.config.root import iter_options
from octavo.messages.result import CoreStats
from octavo.models.table import MODELS
from octavo.observe.metrics import Metrics
from octavo.server.tenants.accounts import TenantUsage
from tests.conformance.fallback import FALLBACK, REFUSED
from tests.conformance.families import FAMILIES

CACHE_LABELS = ("block_size", "num_gpu_blocks", "enable_prefix_caching", "gpu_memory_utilization")
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["routes.md", "options.md", "errors.md", "metrics.md", "models.md"])
def test_pages_are_fresh(reference: ModuleType, name: str) -> None:
    text = reference.pages()[name]
    assert (DOCS / "reference" / name).read_text() == text, "run `make reference`"
    assert all(line.endswith("|") for line in text.splitlines() if line.startswith("|")), "a row is cut"
    assert "None" not in text and "{" not in re.sub(r"`[^`]*`", "", text)


def test_nothing_is_left_out(reference: ModuleType) -> None:
    pages = reference.pages()
    for spec in iter_options():
        assert not spec.flag or f"`--{spec.name.replace('_', '-')}`" in pages["options.md"]
    for member in ErrorCode:
        assert f"`{member.value.code}`" in pages["errors.md"]
    for route in ("POST /v1/chat/completions", "GET /load", "POST /sleep?level&mode", "POST /wake_up"):
        assert f"`{route}`" in pages["routes.md"]
    for field in ("messages", "temperature", "tools", "request_ids"):
        assert f"`{field}`" in pages["routes.md"]
    for architecture in MODELS:
        assert f"| `{architecture}` | [octavo/models/" in pages["models.md"]
    for case in [*FAMILIES, *REFUSED, *(case for case in FALLBACK if "forced" not in case)]:
        assert case in pages["models.md"]


def test_the_page_of_routes_speaks_to_strangers(reference: ModuleType) -> None:
    page = reference.pages()["routes.md"]
    assert "__" not in page and ".py`" not in page and "octavo." not in page and "``" not in page
    headings = set(re.findall(r"^### (.*)$", page, flags=re.MULTILINE))
    for name in re.findall(r"\[(\w+)\]\(#\w+\)", page):
        assert name in headings, "what a route takes and gives is told below"
    for row in (
        "| `tools` | list of object |",
        "| `temperature` | number | Randomness; 0 always takes the likeliest token. |",
        "| `request_timeout` | number | Seconds until the whole answer",
    ):
        assert row in page
    streams = r"\[ChatReply\]\(#chatreply\); streamed: \[ChatChunk\]\(#chatchunk\) \|$"
    assert re.search(rf"^\| `POST /v1/chat/completions` .*{streams}", page, flags=re.MULTILINE)


def test_schemas_have_plain_names(reference: ModuleType) -> None:
    """Two classes of one name get their modules' names in front: generated clients would show them."""
    for page in reference.openapi_pages():
        assert all(name.isalnum() for name in page["components"]["schemas"])


def test_every_metric_of_a_scrape_is_on_the_page(reference: ModuleType) -> None:
    metrics = Metrics(model_name="m")
    metrics.read_stats(CoreStats)
    metrics.read_tenants(lambda: {"someone": TenantUsage()})
    metrics.cache_config(dict.fromkeys(CACHE_LABELS, 1))
    page = reference.pages()["metrics.md"]
    families = text_string_to_metric_families(metrics.render("")[0].decode())
    samples = [sample for family in families for sample in family.samples]
    for sample in samples:
        name = re.sub("_(bucket|sum|count|created)$", "", sample.name)
        assert f"`{name}`" in page or f"`{name}_total`" in page, sample
        for label in sample.labels.keys() - {"le"}:
            assert f"`{label}`" in page, sample
    described = re.findall(r"^\| `([a-z0-9:_]+)` \| (?:counter|gauge|histogram) ", page, flags=re.MULTILINE)
    names = {re.sub("_count$", "", sample.name) for sample in samples} | {"http_requests_total"}
    assert set(described) <= names


def test_links_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), *DOCS.glob("*/*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            linked = (page.parent / path) if path else page
            assert linked.exists(), f"{page.name} links to {target}"
            if anchor and linked.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", linked.read_text(), flags=re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}
                assert anchor in anchors, f"{page.name} links to {target}"


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    for page in [*DOCS.glob("*.md"), *DOCS.glob("features/*.md"), *DOCS.glob("reference/*.md")]:
        if page.name != "README.md":
            assert f"({page.relative_to(DOCS)})" in index, page


def test_a_stale_page_is_noticed(tmp_path: Path) -> None:
    script = tmp_path / "make_reference.py"
    script.write_text((DOCS / "make_reference.py").read_text())
    check = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60
    )
    assert check.returncode == 1 and "options.md is stale" in check.stdout
