"""HEAD: what load balancers and uptime checks ask with. Every route of GET answers it, without the body."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute


def answer_heads(app: FastAPI) -> None:
    """Called when all routes are there. The connection leaves the body out, as it must for HEAD."""
    for route in list(app.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            app.head(route.path, include_in_schema=False)(route.endpoint)
