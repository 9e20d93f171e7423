"""Serving: what every route needs, made once per application."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from octavo.base.errors import ErrorCode, RequestError
from octavo.config.observe import ObserveConfig
from octavo.config.server import ServerConfig
from octavo.observe.metrics import Metrics
from octavo.server.engine_port import EnginePort, TokenizerPort
from octavo.server.errors import quoted
from octavo.server.lifecycle import Lifecycle
from octavo.server.parsing.detect import Detected, detect, with_regions
from octavo.server.tenants.accounts import Accounts
from octavo.server.tenants.key_book import KeyBook

MAX_TEMPLATES = 64
"""Requests may bring templates; what is known of the last ones is kept."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The engine and its surroundings, as routes see them."""

    engine: EnginePort
    server: ServerConfig
    observe: ObserveConfig
    lifecycle: Lifecycle
    metrics: Metrics | None
    keys: KeyBook
    accounts: Accounts
    created: int
    """When the server started, Unix seconds: `created` of its models."""
    version: str

    @property
    def tokenizer(self) -> TokenizerPort:
        return self.engine.tokenizer

    @property
    def model_names(self) -> list[str]:
        """Names the API answers to; the first one is reported."""
        return self.engine.config.model.served_model_name

    @property
    def fingerprint(self) -> str:
        return f"octavo-{self.version}"

    def detected(self, template: str | None) -> Detected:
        """The formats of answers to prompts that `template` makes."""
        known = self._detected.get(template)
        if known is None:
            if len(self._detected) == MAX_TEMPLATES:
                self._detected.clear()
            found = detect(template, self.server.tool_call_parser, self.server.reasoning_parser)
            known = self._detected[template] = with_regions(found, self.tokenizer.response_template)
        return known

    @cached_property
    def _detected(self) -> dict[str | None, Detected]:
        return {}

    def check_model(self, name: str | None) -> str:
        """The name to report back. A body without a name means the only model there is."""
        if name is None:
            return self.model_names[0]
        if name not in self.model_names:
            raise RequestError(
                f"There is no model {quoted(name)}. Available: {', '.join(self.model_names)}.",
                code=ErrorCode.MODEL_NOT_FOUND,
                param="model",
            )
        return name
