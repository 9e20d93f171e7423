"""All responses of a server: those that run in the background, and those that are kept."""

from __future__ import annotations

from octavo.base.errors import ConfigError, ErrorCode, RequestError
from octavo.config.server import ServerConfig
from octavo.server.errors import quoted
from octavo.server.lifecycle import Lifecycle
from octavo.server.openai.responses.background import Background, Job
from octavo.server.openai.responses.body import ResponsesBody
from octavo.server.openai.responses.reply import ResponseFailure
from octavo.server.openai.responses.shelf_memory import MemoryShelf
from octavo.server.openai.responses.shelf_sqlite import SqliteShelf
from octavo.server.openai.responses.store import UNFINISHED, ResponseStore, Shelf, StoredResponse
from octavo.server.tenants.accounts import Accounts


class Library:
    """Finds, keeps and forgets responses. Nobody finds those of another owner.

    Work that the server closes in the end: a drain waits for the jobs by counting them.
    """

    def __init__(self, store: ResponseStore | None, background: Background) -> None:
        """`store` None: this server keeps nothing."""
        self._store = store
        self.background = background

    def keeps(self, body: ResponsesBody) -> bool:
        """Whether the response to `body` is kept. Refuses wishes that cannot be met."""
        if body.store and self._store is None:
            raise RequestError(
                "This server keeps no responses (--max-stored-responses 0); set store to false.",
                code=ErrorCode.UNSUPPORTED_VALUE,
                param="store",
            )
        keeps = self._store is not None and body.store is not False
        if body.background and not keeps:
            raise RequestError(
                "A response in the background must be kept until it is fetched; background needs store.",
                param="background",
            )
        return keeps

    async def find(self, owner: str, response_id: str) -> StoredResponse | None:
        """A response in its present state."""
        job = self.background.find(owner, response_id)
        if job is not None:
            return job.stored
        stored = None if self._store is None else await self._store.get(owner, response_id)
        if stored is not None and stored.reply.status in UNFINISHED:
            # It ran in a server that is no more.
            stored.reply.status = "failed"
            stored.reply.error = ResponseFailure(
                "server_error", "The server ended before the answer was complete."
            )
        return stored

    async def get(self, owner: str, response_id: str) -> StoredResponse:
        """The same, for a route whose path names it."""
        stored = await self.find(owner, response_id)
        if stored is None:
            raise RequestError(
                f"There is no response {quoted(response_id)} (any more).",
                code=ErrorCode.NOT_FOUND,
                param="response_id",
            )
        return stored

    async def keep(self, stored: StoredResponse) -> None:
        if self._store is not None:
            await self._store.put(stored)

    async def run(self, job: Job) -> None:
        """Run in the background, and know about it after a restart."""
        self.background.start(job)
        await self.keep(job.stored)

    async def delete(self, owner: str, response_id: str) -> None:
        """Forget a response; end it first if it runs."""
        await self.get(owner, response_id)
        job = self.background.find(owner, response_id)
        if job is not None:
            await job.cancel()
        self.background.forget(response_id)
        if self._store is not None:
            await self._store.delete(response_id)

    def start(self) -> None:
        """Nothing is taken up again: a response that a server left unfinished has failed."""

    def stop(self) -> None:
        """What runs may finish, as every other request."""

    async def close(self) -> None:
        await self.background.close()
        if self._store is not None:
            self._store.close()


def check_store(server: ServerConfig) -> None:
    """Find out before a model is loaded whether the options can be met. Raises ConfigError."""
    for name in ("max_stored_responses", "max_stored_response_bytes", "max_background_responses"):
        if getattr(server, name) < 0:
            raise ConfigError(f"{name} is {getattr(server, name)}; at least 0.", param=name)
    if server.response_store is not None:
        if server.max_stored_responses == 0:
            raise ConfigError(
                "response_store names a file, and max_stored_responses 0 keeps none. Leave one out.",
                param="response_store",
            )
        SqliteShelf(server.response_store, 1, 1).close()


def open_library(server: ServerConfig, lifecycle: Lifecycle, accounts: Accounts) -> Library:
    """The library as the options want it. Raises ConfigError."""
    background = Background(server.max_background_responses, lifecycle, accounts)
    count, num_bytes = server.max_stored_responses, server.max_stored_response_bytes
    shelf: Shelf | None = None
    if count and server.response_store is None:
        shelf = MemoryShelf(count, num_bytes)
    elif count and server.response_store is not None:
        shelf = SqliteShelf(server.response_store, count, num_bytes)
    library = Library(None if shelf is None else ResponseStore(shelf), background)
    lifecycle.add_background(library)
    return library
