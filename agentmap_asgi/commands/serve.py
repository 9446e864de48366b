"""`serve`: workflows over HTTP, by one process or several."""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import json
import logging
import os
import shlex
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..config import ENGINES, SERVERS, masked
from .source import add_source, quiet, service_of

if TYPE_CHECKING:
    from ..app import AgentMapApp
    from ..http.hosts import KnownHosts
    from ..services.agentmap import AgentMapService


MOST_WORKERS: Final = 256
SERVED: Final = "_AGENTMAP_ASGI_SERVED"
"""The variable through which worker processes are told what they serve."""
MOST_SHOWN: Final = 5
"""Workflows that are shown to be tried."""
MOST_FILES: Final = 5
"""So many broken files are named when a server starts."""


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    add_source(parser, optional=True)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on; 0 takes a free one (%(default)s)")
    parser.add_argument("--root-path", default="", help="the prefix a proxy serves this under, like /workflows")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name in URLs, beside localhost, under which this server answers without API keys; *.example.com allows "
        "all names below it; may be given several times",
    )
    parser.add_argument(
        "--workers", type=_workers, default=1, help="processes that share one store, and the work (%(default)s)"
    )
    parser.add_argument("--engine", choices=ENGINES, help="where executions run (the setting engine)")
    parser.add_argument("--access-log", action="store_true", help="log every request")
    parser.set_defaults(command=_serve)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text[:6]) <= 65_535:
        return int(text[:6])
    raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")


def _serve(arguments: argparse.Namespace) -> int:
    more = {} if arguments.engine is None else {"engine": arguments.engine}
    service = service_of(arguments, **more)
    if not _loopback(arguments.host) and not service.config.api_keys:
        print(
            f"Refusing to listen on {arguments.host}: this server asks nobody who they are, so it answers this machine "
            "only. To serve others, make a key (agentmap-asgi keys new) and put its line into AGENTMAP_API_KEYS, or "
            "mount AgentMapApp in an application and give AgentMapContext(authenticate=...)",
            file=sys.stderr,
        )
        return 2
    if arguments.workers > 1 and service.config.storage_url == "memory://":
        print(
            "Several workers need a store that they share: set storage_url (AGENTMAP_STORAGE_URL), for example to "
            "sqlite:///agentmap_data/agentmap.db",
            file=sys.stderr,
        )
        return 2
    asyncio.run(_opened(service))
    import uvicorn

    from ..app import AgentMapApp

    if service.config.log_level is not None:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with quiet():
        app = _guarded(AgentMapApp(service=service), arguments.allow_host)
    family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    try:
        listening = socket.create_server((arguments.host, arguments.port), family=family)
    except OSError as exc:
        taken = exc.errno == errno.EADDRINUSE
        why = "another program listens there; --port 0 takes a free one" if taken else exc.strerror
        print(f"Cannot listen on {arguments.host} port {arguments.port}: {why}", file=sys.stderr)
        return 2
    port = listening.getsockname()[1]
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where this machine reaches what listens everywhere
    host = anywhere.get(arguments.host, arguments.host)
    host = f"[{host}]" if family is socket.AF_INET6 else host
    root = "/" + arguments.root_path.strip("/") if arguments.root_path.strip("/") else ""
    for line in _warnings(arguments, service):
        print(line, file=sys.stderr, flush=True)
    print(_welcome(service, f"http://{host}:{port}{root}"), flush=True)
    settings: dict[str, Any] = {
        "root_path": root,
        "log_level": "info" if arguments.access_log else "warning",
        "access_log": arguments.access_log,
        "timeout_graceful_shutdown": max(1, round(service.config.shutdown_grace)),
    }
    if arguments.workers == 1:
        uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listening])
        return 0
    os.environ[SERVED] = json.dumps([arguments.source, arguments.config, more, arguments.allow_host])
    listening.close()  # uvicorn opens it again for the workers
    uvicorn.run(
        f"{__name__}:worker",
        factory=True,
        workers=arguments.workers,
        host=arguments.host,
        port=port,
        **settings,
    )
    return 0


async def _opened(service: AgentMapService) -> None:
    """See, before anything is served, that the store can be used by this source. Raises StoreUnusable."""
    store = service.store
    if not store.durable:
        return
    with quiet():
        try:
            await store.open()
            store.runner().close()
        finally:
            await store.aclose()


def worker() -> AgentMapApp | KnownHosts:
    """The app of one worker process."""
    from ..app import AgentMapApp

    source, config, more, allowed = json.loads(os.environ[SERVED])
    service = service_of(argparse.Namespace(source=source, config=config), **more)
    with quiet():
        return _guarded(AgentMapApp(service=service), allowed)


def _guarded(app: AgentMapApp, allowed: list[str]) -> AgentMapApp | KnownHosts:
    """Where nobody is asked for a key, pages of other sites must not reach what only this machine may."""
    from ..http.hosts import KnownHosts

    return app if app.service.config.api_keys else KnownHosts(app, allowed)


def _workers(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if not 1 <= number <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_WORKERS}")
    return number


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _warnings(arguments: argparse.Namespace, service: AgentMapService) -> Iterator[str]:
    """What somebody who starts a server should know: files with errors or none, and that nobody is asked for a key."""
    if not service.catalogue.files:
        yield f"Warning: there are no workflow files in {service.catalogue.source}"
    counts = Counter(found.file for found in service.catalogue.findings if found.severity == "error")
    told = [arguments.source, *(["--config", arguments.config] if arguments.config else [])]
    command = shlex.join(["agentmap-asgi", "check", *(word for word in told if word)])
    for file, count in sorted(counts.items())[:MOST_FILES]:
        yield f"Warning: {file} has {count} error{'s' * (count != 1)}; see: {command}"
    if len(counts) > MOST_FILES:
        yield f"Warning: {len(counts) - MOST_FILES} more files have errors"
    if not service.config.api_keys:
        yield "Note: without API keys every program on this machine may call this server (agentmap-asgi keys new)"


def _welcome(service: AgentMapService, base: str) -> str:
    """What is served and what to try: lines that can be typed as they are."""
    workflows = service.catalogue.workflows
    healthy = [workflow for workflow in workflows if not workflow.broken]
    broken = len(workflows) - len(healthy)
    more = f", {broken} of them with errors (see {base}/list)" if broken else ""
    url = service.config.storage_url
    where: Path | str = "memory"
    if url.startswith(SERVERS):
        where = f"{masked(url)}, schema {service.config.storage_schema}"
    elif service.store.durable:
        where = Path(url.removeprefix("sqlite:///")).absolute()
    lines = [
        f"{len(workflows)} workflow{'s' * (len(workflows) != 1)} on {base}{more}",
        f"Executions are kept in {where}",
        *([f"The page: {base}/ui/"] if service.config.enable_docs else []),
        "",
        "Try:",
    ]
    key = " -H 'X-API-Key: KEY'" if service.config.api_keys else ""
    lines.append(f"  curl {base}/list{key}")
    names = [workflow.name for workflow in workflows]
    for workflow in healthy[:MOST_SHOWN]:
        name = workflow.name if names.count(workflow.name) == 1 else workflow.graph_id
        body = {"graph_name": name, "initial_state": _example(service.get_workflow_schema(name))}
        given = shlex.quote(json.dumps(body, ensure_ascii=False))
        lines.append(f"  curl {base}/execute{key} -H 'Content-Type: application/json' -d {given}")
    lines += ["", "Ctrl+C stops it."]
    return "\n".join(lines)


def _example(schema: dict[str, Any]) -> Any:
    """A value that fits a JSON Schema, so far as simple ones go."""
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _example(part) for name, part in properties.items()}
    return {"array": [], "integer": 1, "number": 1, "boolean": True, "null": None}.get(kind, "text")
