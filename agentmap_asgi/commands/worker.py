"""`worker`: a process that runs executions and answers nobody."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from ..config import masked
from .source import add_source, quiet, service_of

if TYPE_CHECKING:
    from ..services.agentmap import AgentMapService


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    add_source(parser, optional=True)
    parser.add_argument(
        "--concurrency", type=_number, metavar="N", help="executions that run at once here (the setting max_running)"
    )
    parser.epilog = (
        "It runs on the engine dbos, and needs the storage_url and namespace of those that take executions on. SIGTERM "
        "ends it: what runs gets shutdown_grace seconds, what takes longer goes on in another worker. A second one "
        "ends it at once."
    )
    parser.set_defaults(command=_work)


def _number(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")


def _work(arguments: argparse.Namespace) -> int:
    more = {} if arguments.concurrency is None else {"max_running": arguments.concurrency}
    service = service_of(arguments, engine="dbos", run_executions=True, **more)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return asyncio.run(_until_told(service))


async def _until_told(service: AgentMapService) -> int:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    main = asyncio.current_task()
    assert main is not None  # noqa: S101

    def stop() -> None:
        if told.is_set():
            main.cancel()
        told.set()

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop)
    try:
        with quiet():
            await service.start()
        config, number = service.config, len(service.catalogue.workflows)
        print(
            f"Running up to {config.max_running} executions at once of {number} workflow{'s' * (number != 1)} "
            f"from {masked(config.storage_url)}, namespace {service.store.namespace}",
            flush=True,
        )
        await told.wait()
        running = service.readiness()["running"]
        if running:
            grace = f"{config.shutdown_grace:g} s"
            print(f"Stopping; {running} execution{'s' * (running != 1)} may end within {grace}", flush=True)
        await service.aclose()
    except asyncio.CancelledError:
        print("Stopped at once; other workers go on with what ran here", flush=True)
        return 1
    return 0
