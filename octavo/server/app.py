"""The application: routes, and around them a list of middlewares in the order requests meet them."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import octavo
from octavo.config.observe import ObserveConfig
from octavo.config.server import ServerConfig
from octavo.observe.loop_lag import LoopLag
from octavo.observe.metrics import Metrics
from octavo.server.anthropic.routes import ERROR_SHAPES as ANTHROPIC_SHAPES
from octavo.server.anthropic.routes import add_anthropic_routes
from octavo.server.auth import Auth
from octavo.server.door import Door
from octavo.server.engine_port import EnginePort
from octavo.server.errors import Errors, on_http_exception
from octavo.server.heads import answer_heads
from octavo.server.health import add_health_routes
from octavo.server.http_form import HttpForm
from octavo.server.info_api import add_info_routes
from octavo.server.kinds import OnlyNumbers
from octavo.server.lifecycle import Admission, Lifecycle
from octavo.server.limits import BodyLimit
from octavo.server.ollama.errors import OLLAMA_SHAPES
from octavo.server.ollama.routes import add_ollama_routes
from octavo.server.openai.batches.routes import add_file_and_batch_routes
from octavo.server.openai.files.routes import PATH as FILES_PATH
from octavo.server.openai.files.upload import FORM_BYTES
from octavo.server.openai.responses.routes import add_response_routes
from octavo.server.openai.routes import add_openai_routes
from octavo.server.openapi import ApiPage
from octavo.server.pooling.routes import add_pooling_routes
from octavo.server.request_id import RequestContext
from octavo.server.sagemaker import add_sagemaker_routes
from octavo.server.serving import Serving
from octavo.server.tenants.access import client_access
from octavo.server.tenants.accounts import Accounts
from octavo.server.tenants.key_book import configured_keys
from octavo.server.tenants.turnstile import Turnstile
from octavo.server.tenants.usage_api import add_usage_routes
from octavo.server.tgi.errors import TGI_SHAPES
from octavo.server.tgi.routes import add_tgi_routes
from octavo.server.time_limit import TimeLimit, check_time_limit
from octavo.server.tokens_api import add_token_routes

DESCRIPTION = "A serving engine for large language models, with the APIs that applications already speak."

ADD_ROUTES = (
    add_openai_routes,
    add_response_routes,
    add_file_and_batch_routes,
    add_pooling_routes,
    add_anthropic_routes,
    add_sagemaker_routes,
    add_ollama_routes,
    add_tgi_routes,
    add_token_routes,
    add_health_routes,
    add_info_routes,
    add_usage_routes,
)

ERROR_SHAPES = {**ANTHROPIC_SHAPES, **OLLAMA_SHAPES, **TGI_SHAPES}
"""Which paths speak of errors in another way than OpenAI's."""


def create_app(
    engine: EnginePort,
    server: ServerConfig,
    observe: ObserveConfig,
    lifecycle: Lifecycle | None = None,
    loop_lag: LoopLag | None = None,
) -> FastAPI:
    """Build the application around a started engine. `lifecycle` is given by who drains it, `loop_lag` by who
    has it measure."""
    check_time_limit(server)
    keys = configured_keys(server)
    serving = Serving(
        engine=engine,
        server=server,
        observe=observe,
        lifecycle=lifecycle or Lifecycle(),
        metrics=None if observe.disable_metrics else Metrics(
            model_name=engine.config.model.served_model_name[0], prefix=observe.metrics_prefix
        ),
        keys=keys,
        accounts=Accounts(),
        created=int(time.time()),
        version=octavo.__version__,
    )  # fmt: skip
    serving.detected(serving.tokenizer.template_for(None, True))  # What cannot be read is found out now.
    app = FastAPI(
        title="Octavo",
        description=DESCRIPTION,
        version=serving.version,
        openapi_url=None,  # the page has its own route
        redirect_slashes=False,
        middleware=[
            Middleware(RequestContext, serving.metrics, observe.log_requests),
            *_cors(server),
            Middleware(Errors, ERROR_SHAPES),
            Middleware(HttpForm),
            Middleware(Auth, keys, client_access, has_walls=bool(server.separate_prefix_caches)),
            Middleware(TimeLimit, server.request_timeout),
            Middleware(Door, engine, serving.metrics),
            Middleware(Turnstile, serving.accounts),
            Middleware(Admission, serving.lifecycle),
            *([] if engine.facts.pooling is None else [Middleware(OnlyNumbers, engine.facts.pooling)]),
            Middleware(BodyLimit, server.max_body_bytes, {FILES_PATH: server.max_file_bytes + FORM_BYTES}),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )
    page = ApiPage(has_keys=not keys.is_open)
    for add_routes in ADD_ROUTES:
        add_routes(app, serving, page)
    page.install(app, is_served=server.enable_docs)
    answer_heads(app)
    engine.add_usage_listener(serving.accounts)
    if serving.metrics is not None:
        _connect_metrics(serving.metrics, engine, app)
        if loop_lag is not None:
            loop_lag.tell(serving.metrics.loop_lag)
        if keys.has_names:
            serving.metrics.read_tenants(lambda: serving.accounts.of(keys.names()))
    return app


def _cors(server: ServerConfig) -> list[Middleware]:
    """Browsers of other origins are let in only where the operator says so."""
    if not server.allowed_origins:
        return []
    options: dict[str, Any] = {
        "allow_origins": server.allowed_origins,
        "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
        # Clients of OpenAI and Anthropic send a dozen about themselves, and more with each version.
        "allow_headers": ["*"],
        "expose_headers": ["x-request-id", "request-id", "retry-after"],
    }
    return [Middleware(CORSMiddleware, **options)]


def _connect_metrics(metrics: Metrics, engine: EnginePort, app: FastAPI) -> None:
    cache = engine.config.cache
    metrics.cache_config(
        {
            "block_size": engine.ready.plan.block_size,
            "num_gpu_blocks": engine.ready.plan.num_blocks,
            "enable_prefix_caching": cache.enable_prefix_caching,
            "gpu_memory_utilization": cache.memory_utilization,
        }
    )
    metrics.know_handlers(path for route in app.routes if (path := getattr(route, "path", None)))
    metrics.read_stats(engine.stats)
    engine.add_stats_listener(metrics.step_done)
