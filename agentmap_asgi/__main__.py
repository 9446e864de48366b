"""The command line: serve, run, check and draw workflows.

Packages are imported by the command that needs them, so that every command starts fast.
"""

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
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from . import __version__
from .errors import AgentMapError, ConfigError, WorkflowInvalid
from .maintenance import add_store

if TYPE_CHECKING:
    from .app import AgentMapApp
    from .services.agentmap import AgentMapService
    from .workflows.diagnostics import Diagnostic


MOST_WORKERS: Final = 256
SERVED: Final = "_AGENTMAP_ASGI_SERVED"
"""The variable through which worker processes are told what they serve."""
MOST_FILES: Final = 5
"""So many broken files are named when a server starts."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, not after the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:]} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is unknown here, where it is known which command has it."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"there is no argument {' '.join(unknown)}")
        return found, unknown


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 1 when it found errors, or 2 when it could not begin."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except WorkflowInvalid as exc:
        print(f"The workflow {exc.name!r} has errors and cannot be started:", file=sys.stderr)
        print(*exc.diagnostics, sep="\n", file=sys.stderr)
        return 2
    except AgentMapError as exc:
        print(exc.message, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has read enough, as `head` does; nothing more may be written at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="agentmap-asgi",
        description="Workflows written as CSV rows. Settings come from a file (--config) and AGENTMAP_* variables.",
    )
    parser.add_argument("--version", action="version", version=f"agentmap-asgi {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve workflows over HTTP")
    _source(serve, optional=True)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=_port, default=8000, help="port to listen on; 0 takes a free one (%(default)s)")
    serve.add_argument("--root-path", default="", help="the prefix a proxy serves this under, like /workflows")
    serve.add_argument(
        "--workers", type=_workers, default=1, help="processes that share one store, and the work (%(default)s)"
    )
    serve.add_argument("--access-log", action="store_true", help="log every request")
    serve.set_defaults(command=_serve)

    run = commands.add_parser(
        "run",
        help="run one workflow and print its document",
        epilog="The exit status is 0 when the execution completed, 1 when it failed, 2 when it could not begin.",
    )
    _source(run)
    _graph(run)
    run.add_argument(
        "-i", "--input", action="append", default=[], metavar="NAME=TEXT", help="one field; may be repeated"
    )
    run.add_argument("--json", metavar="OBJECT", help="the initial state as JSON; - reads it from standard input")
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "check",
        help="report everything that is wrong with workflow files",
        epilog="The exit status is 0 without errors (there may be things to note), 1 with errors, "
        "2 when the files could not be read.",
    )
    _source(check, optional=True)
    check.add_argument("--json", action="store_true", help="one JSON object a line")
    check.set_defaults(command=_check)

    graph = commands.add_parser("graph", help="draw a workflow")
    _source(graph)
    _graph(graph)
    graph.add_argument("--format", choices=("mermaid", "dot", "json"), default="mermaid", help="(%(default)s)")
    graph.set_defaults(command=_draw)

    keys = commands.add_parser("keys", help="make API keys")
    new = keys.add_subparsers(required=True, metavar="COMMAND").add_parser("new", help="make one and print it, once")
    new.add_argument("--name", required=True, help="who has it; known to the runs as the principal")
    new.add_argument("--scopes", default="run,read", help="some of run, read, probe, admin (%(default)s)")
    new.add_argument("--expires", metavar="TIME", help="how long it is valid, like 90d, 12h or 30m (for ever)")
    new.set_defaults(command=_new_key)

    add_store(commands)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command=_version)
    return parser


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text[:6]) <= 65_535:
        return int(text[:6])
    raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")


def _source(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    what = "a CSV file, or a folder of them" + (" (the setting csv_path)" if optional else "")
    parser.add_argument("source", metavar="SOURCE", nargs="?" if optional else None, help=what)
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings; AGENTMAP_* variables win over it")


def _graph(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", metavar="GRAPH", help="the workflow's name, or file::Name")


def _service(arguments: argparse.Namespace, **settings: Any) -> AgentMapService:
    """Arguments win over variables, and these over the file; `settings` win over all."""
    from .config import AgentMapConfig
    from .services.agentmap import AgentMapService

    config = AgentMapConfig.from_env(file=arguments.config)
    if arguments.source is None and config.csv_path is None:
        raise ConfigError("Say where the workflows are: name a file or folder, or set csv_path (AGENTMAP_CSV_PATH)")
    with _quiet():
        return AgentMapService(replace(config, **settings), source=arguments.source)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log lines for a host's developers: the commands say the same in their own words."""
    nowhere, logger = logging.NullHandler(), logging.getLogger(__package__)
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)


def _new_key(arguments: argparse.Namespace) -> int:
    """The line for the settings goes to standard output, so that it can be appended to a file, and the key does not."""
    from .http.keys import expiry, new_key

    expires = expiry(arguments.expires, datetime.now(UTC)) if arguments.expires else None
    secret, key = new_key(arguments.name, arguments.scopes.replace(",", " ").split(), expires)
    print(f"The key, which is shown this once: {secret}", file=sys.stderr)
    print("The line that stands for it in api_keys or AGENTMAP_API_KEYS:", file=sys.stderr, flush=True)
    print(key.line)
    return 0


def _version(arguments: argparse.Namespace) -> int:
    print(f"agentmap-asgi {__version__}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    state = _state(arguments)
    if state is None:
        return 2
    service = _service(arguments, patrol_seconds=0.0)  # it runs this, and nothing that others have left

    async def run() -> dict[str, Any]:
        try:
            return await service.execute_workflow(arguments.graph, state)
        finally:
            await service.aclose()

    document = asyncio.run(run())
    print(json.dumps(document, ensure_ascii=False, indent=2))
    if document["status"] == "suspended":
        nodes = ", ".join(wait["node"] for wait in document["waiting"])
        missing = all(wait["type"] == "input" for wait in document["waiting"])
        how = f"{'give what it asks for with --input, or ' * missing}serve the workflow and answer it there"
        print(f"The run waits for an answer at {nodes}; {how}", file=sys.stderr)
    return 0 if document["success"] else 1


def _state(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The initial state that the arguments describe; None after an error was printed."""
    text = sys.stdin.read() if arguments.json == "-" else arguments.json
    try:
        state = json.loads(text) if text else {}
    except ValueError as exc:
        print(f"--json is not JSON: {exc}", file=sys.stderr)
        return None
    if not isinstance(state, dict):
        print('--json takes an object, like {"name": "Ada"}', file=sys.stderr)
        return None
    for pair in arguments.input:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            print(f"--input takes NAME=TEXT, not {pair!r}", file=sys.stderr)
            return None
        state[name] = value
    return state


def _check(arguments: argparse.Namespace) -> int:
    from .workflows.paths import check_paths

    service = _service(arguments)
    catalogue = service.catalogue
    further = [one for workflow in catalogue.workflows for one in check_paths(workflow, service.registry)]
    found = sorted([*catalogue.findings, *further], key=_place)
    for diagnostic in found:
        print(json.dumps(diagnostic.to_dict(), ensure_ascii=False) if arguments.json else diagnostic)
    errors = sum(diagnostic.severity == "error" for diagnostic in found)
    if not arguments.json:
        files = f"{len(catalogue.files)} file{'s' * (len(catalogue.files) != 1)}"
        workflows = f"{len(catalogue.workflows)} workflow{'s' * (len(catalogue.workflows) != 1)}"
        print(f"{workflows} in {files}: {errors} error{'s' * (errors != 1)}, {len(found) - errors} to note")
    return 1 if errors else 0


def _place(diagnostic: Diagnostic) -> tuple[str, int]:
    return diagnostic.file, diagnostic.row or 0


def _draw(arguments: argparse.Namespace) -> int:
    drawing = _service(arguments).draw_workflow(arguments.graph, arguments.format)
    text = drawing if isinstance(drawing, str) else json.dumps(drawing, ensure_ascii=False, indent=2)
    print(text.rstrip("\n"))
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    service = _service(arguments)
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

    from .app import AgentMapApp

    if service.config.log_level is not None:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with _quiet():
        app = AgentMapApp(service=service)
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
    print(_welcome(app.service, f"http://{host}:{port}{root}"), flush=True)
    settings: dict[str, Any] = {
        "root_path": root,
        "log_level": "info" if arguments.access_log else "warning",
        "access_log": arguments.access_log,
        "timeout_graceful_shutdown": max(1, round(app.service.config.shutdown_grace)),
    }
    if arguments.workers == 1:
        uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listening])
        return 0
    os.environ[SERVED] = json.dumps([arguments.source, arguments.config])
    listening.close()  # uvicorn opens it again for the workers
    uvicorn.run(
        f"{__package__}.__main__:_worker",
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
    with _quiet():
        try:
            await store.open()
            store.runner().close()
        finally:
            await store.aclose()


def _worker() -> AgentMapApp:
    """The app of one worker process."""
    from .app import AgentMapApp

    source, config = json.loads(os.environ[SERVED])
    service = _service(argparse.Namespace(source=source, config=config))
    with _quiet():
        return AgentMapApp(service=service)


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
    where = Path(url.removeprefix("sqlite:///")).absolute() if service.store.durable else "memory"
    lines = [
        f"{len(workflows)} workflow{'s' * (len(workflows) != 1)} on {base}{more}",
        f"Executions are kept in {where}",
        "",
        "Try:",
    ]
    key = " -H 'X-API-Key: KEY'" if service.config.api_keys else ""
    lines.append(f"  curl {base}/list{key}")
    names = [workflow.name for workflow in workflows]
    for workflow in healthy[:3]:
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


if __name__ == "__main__":
    sys.exit(main())
