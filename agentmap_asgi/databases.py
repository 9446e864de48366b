"""The database of the setting `sql_url`, opened when a node first needs it and closed with the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from anyio import to_thread

from .errors import ConfigError


def engine_of(url: str) -> Callable[[], AsyncIterator[Any]]:
    """A factory of an engine, async when the URL's driver is. It raises ConfigError for what cannot be opened."""

    async def opened() -> AsyncIterator[Any]:
        engine = await to_thread.run_sync(_made, url)  # dialects are looked up on the disk
        try:
            yield engine
        finally:
            closed = engine.dispose()
            if closed is not None:
                await closed

    return opened


def _made(url: str) -> Any:
    try:
        from sqlalchemy import create_engine
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
        from sqlalchemy.ext.asyncio import create_async_engine
    except ImportError:
        raise ConfigError("sql_url needs SQLAlchemy: pip install 'agentmap-asgi[sql]'") from None
    try:
        parsed = make_url(url)
        return create_async_engine(parsed) if parsed.get_dialect().is_async else create_engine(parsed)
    except (ArgumentError, NoSuchModuleError, InvalidRequestError):  # their texts may hold the password
        raise ConfigError("sql_url is no URL that SQLAlchemy knows, like sqlite:///shop.db") from None
    except ImportError as exc:
        raise ConfigError(f"sql_url needs a driver that is not installed: {exc.name}") from None
