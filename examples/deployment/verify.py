"""The files of a deployment fit each other and the program. Nothing is started."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

from agentmap_asgi import AgentMapConfig, AgentMapService
from agentmap_asgi.__main__ import main

HERE = Path(__file__).parent


def commands() -> list[list[str]]:
    """What the files start, as lists of words."""
    units = [line for unit in HERE.glob("*.service") for line in unit.read_text().splitlines()]
    found = [shlex.split(line.removeprefix("ExecStart="))[1:] for line in units if line.startswith("ExecStart=")]
    composed = re.findall(r'command: \["agentmap-asgi", (.*)\]', (HERE / "docker-compose.yml").read_text())
    return [*found, *([word.strip('" ') for word in line.split(",")] for line in composed)]


def check() -> None:
    config = AgentMapConfig.from_env({}, file=HERE / "agentmap.toml")
    assert (config.engine, config.namespace) == ("dbos", "orders")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["check", str(HERE / "workflows")]) == 0, said.getvalue()
    for words in commands():
        assert words[0] in ("serve", "worker"), words
        assert words[words.index("--config") + 1] == "agentmap.toml", words
    patience = [float(seconds) for seconds in re.findall(r"(?:TimeoutStopSec=|stop_grace_period: )(\d+)", text())]
    assert min(patience) > config.shutdown_grace
    # The same workflows in one process, without a database.
    service = AgentMapService(AgentMapConfig(storage_url="memory://"), source=HERE / "workflows")
    names = [workflow["name"] for workflow in service.list_workflows()["workflows"]]
    print(f"{len(commands())} commands, settings and {', '.join(names)} fit each other")


def text() -> str:
    return "".join(path.read_text() for path in [*HERE.glob("*.service"), HERE / "docker-compose.yml"])


if __name__ == "__main__":
    check()
