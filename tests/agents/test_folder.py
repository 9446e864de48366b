"""Agents from a folder: what is found there, what is refused, and that apps do not see each other's."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from flows import node, write

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService, agent
from agentmap_asgi.agents.folder import load_agents
from agentmap_asgi.errors import ConfigError

HEAD = "from __future__ import annotations\nfrom agentmap_asgi import agent\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "agents"
    path.mkdir(mode=0o755)
    return path


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(HEAD + text, encoding="utf-8")
    path.chmod(0o644)
    return path


async def ran(tmp_path: Path, folder: Path, agent_type: str, **context: Any) -> Any:
    """The result of one node."""
    path = await asyncio.to_thread(write, tmp_path, [node("A", agent_type, inputs="x", output="y")])
    config = AgentMapConfig(custom_agents_path=str(folder))
    made = await asyncio.to_thread(AgentMapService, config, source=path, context=AgentMapContext(**context))
    document = await made.execute_workflow("Flow", {"x": 2})
    await made.aclose()
    assert document["success"], document["error"]
    return document["result"]["y"]


def test_what_is_an_agent(folder: Path) -> None:
    """Marked functions and classes, and classes with process that are called Agent; by their names."""
    put(
        folder,
        "mine.py",
        "from functools import wraps\n"
        "from agentmap_asgi.agents.builtin import BUILTINS\n"
        "@agent\ndef plain(call): return 1\n"
        "@agent()\nasync def waiting(call): return 1\n"
        "@agent(name='crm lookup', services=['database'], idempotent=True, summary='Finds.')\n"
        "def find(call): return 1\n"
        "same = plain\n"
        'class MailAgent:\n    """Sends."""\n    def process(self, inputs): return 1\n'
        "@agent(name='post', inline=True)\nclass Post:\n    def process(self, inputs): return 1\n"
        "@agent(name='other mail')\nclass SubMailAgent(MailAgent): pass\n"
        "class _HiddenAgent(MailAgent): pass\n"
        "class NoProcessAgent: pass\n"
        "class Helper:\n    def process(self, inputs): return 1\n"
        "def helper(call): return 1\n",
    )
    put(folder, "more.py", "from .mine import MailAgent, plain\n@agent\ndef further(call): return 1\n")
    put(folder, "_private.py", "raise RuntimeError\n")
    (folder / "notes.txt").write_text("no agent")
    agents = load_agents(folder)
    assert list(agents) == ["plain", "waiting", "crm lookup", "Mail", "post", "other mail", "further"]
    assert [a.mode for a in agents.values()] == ["thread", "async", "thread", "thread", "inline", "thread", "thread"]
    assert (agents["crm lookup"].services, agents["crm lookup"].idempotent) == (("database",), True)
    assert (agents["crm lookup"].summary, agents["Mail"].summary) == ("Finds.", "Sends.")


@pytest.mark.anyio
@pytest.mark.parametrize("written", ["double", "Double", "DoubleAgent", "DOUBLE"])
async def test_rows_name_them_as_any_agent(written: str, tmp_path: Path, folder: Path) -> None:
    """In any case, with or without the word Agent."""
    put(folder, "double.py", "class DoubleAgent:\n    def process(self, inputs): return inputs['x'] * 2\n")
    assert await ran(tmp_path, folder, written) == 4


@pytest.mark.anyio
async def test_files_share_code_and_know_their_module(tmp_path: Path, folder: Path) -> None:
    """By relative imports, also late ones; dataclasses and annotations find their module; `sys.path` is untouched."""
    put(folder, "_shared.py", "FACTOR = 10\n")
    put(folder, "_late.py", "STEP = 1\n")
    put(
        folder,
        "times.py",
        "from dataclasses import dataclass, field\nfrom typing import get_type_hints\nfrom ._shared import FACTOR\n"
        "@dataclass\nclass Sum:\n    value: int = field(default=0)\n"
        "@agent\ndef times(call):\n    from ._late import STEP\n"
        "    assert get_type_hints(Sum) == {'value': int}\n    return Sum(call.inputs['x'] * FACTOR + STEP).value\n",
    )
    before = list(sys.path)
    assert await ran(tmp_path, folder, "times") == 21
    assert sys.path == before


@pytest.mark.anyio
async def test_two_apps_have_their_own(tmp_path: Path, folder: Path) -> None:
    """Files of one name in two folders are two modules, in whichever order they run."""
    other = tmp_path / "others"
    other.mkdir(mode=0o755)
    for place, number in ((folder, 1), (other, 2)):
        put(place, "_shared.py", f"NUMBER = {number}\n")
        put(place, "same.py", "@agent\ndef same(call):\n    from ._shared import NUMBER\n    return NUMBER\n")
    assert [await ran(tmp_path, place, "same") for place in (folder, other, folder)] == [1, 2, 1]
    assert "same" not in sys.modules


def test_each_load_reads_the_files_again(folder: Path) -> None:
    """Also when they were changed within the same second; nothing is written beside them."""
    seen = []
    for number in (1, 2, 3):
        put(folder, "_shared.py", f"NUMBER = {number}\n")
        put(folder, "now.py", "from ._shared import NUMBER\n@agent\ndef now(call): return NUMBER\n")
        run = load_agents(folder)["now"].run
        assert run is not None
        seen.append(run(None))  # type: ignore[arg-type]  # the agent looks at nothing
    assert seen == [1, 2, 3]
    assert sorted(path.name for path in folder.iterdir()) == ["_shared.py", "now.py"]
    assert sys.dont_write_bytecode is False or "PYTHONDONTWRITEBYTECODE" in os.environ


def test_a_load_that_fails_leaves_the_earlier_one_alone(folder: Path) -> None:
    """Agents that run already still import what they need."""
    put(folder, "_late.py", "STEP = 1\n")
    put(folder, "late.py", "@agent\ndef late(call):\n    from ._late import STEP\n    return STEP\n")
    run = load_agents(folder)["late"].run
    put(folder, "late.py", "(")
    with pytest.raises(ConfigError):
        load_agents(folder)
    assert run is not None
    assert run(None) == 1  # type: ignore[arg-type]  # the agent looks at nothing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "bad.py, line 3: SyntaxError: "),
        ("import nothing_like_this_exists\n", "bad.py, line 3: ModuleNotFoundError: No module named 'nothing_like_"),
        ("\nimport _shared\n", "line 4: ModuleNotFoundError: No module named '_shared'; a file of this folder is im"),
        ("def f():\n    return 1 / 0\nf()\n", "bad.py, line 4: ZeroDivisionError: division by zero"),
        ("import json\njson.loads('x')\n", "bad.py, line 4: JSONDecodeError: "),
        ("raise SystemExit(3)\n", "bad.py, line 3: SystemExit: 3"),
        ("from . import _broken\n", "_broken.py, line 3: SyntaxError: "),
        (
            "class BadAgent:\n    def __init__(self, name): ...\n    def process(self, inputs): ...\n",
            "bad.py, line 3: ",
        ),
        (
            "class BadAgent:\n    def __init__(self):\n        1 / 0\n    def process(self, inputs): ...\n",
            "line 5: Zer",
        ),
        ("@agent\ndef gen(call):\n    yield\n", "bad.py, line 3: The agent 'gen' is a generator"),
        (
            "@agent('mail')\ndef mail(call): ...\n",
            "bad.py, line 3: TypeError: @agent takes keywords: @agent(name='mail'",
        ),
        ("@agent\ndef Twin(call): ...\nclass TwinAgent:\n    def process(self, inputs): ...\n", "line 3, and at "),
        ("@agent\ndef Taken_Agent(call): ...\n", "'Taken_Agent' is given twice: in the context object, and at "),
    ],
)
def test_a_file_that_cannot_be_used(text: str, message: str, folder: Path) -> None:
    """Is named with its line, and leaves no module behind."""
    put(folder, "_shared.py", "")
    put(folder, "_broken.py", "(\n")
    put(folder, "bad.py", text)
    with pytest.raises(ConfigError) as caught:
        load_agents(folder, ["taken"])
    assert message in caught.value.message
    assert str(folder) in caught.value.message
    assert [name for name in sys.modules if name.startswith("agentmap_agents_") and name.endswith(".bad")] == []


def test_a_name_of_two_files_is_given_with_both_places(folder: Path) -> None:
    """As a name of the folder that the context object has, too."""
    put(folder, "a.py", "@agent(name='mail')\ndef one(call): ...\n")
    put(folder, "b.py", "\nclass MailAgent:\n    def process(self, inputs): ...\n")
    with pytest.raises(ConfigError) as caught:
        load_agents(folder)
    assert f"at {folder / 'a.py'}, line 3, and at {folder / 'b.py'}, line 4" in caught.value.message
    (folder / "b.py").unlink()
    config = AgentMapConfig(custom_agents_path=str(folder))
    source = write(folder, [node("A", "mail")])
    with pytest.raises(ConfigError, match="'mail' is given twice: in the context object"):
        AgentMapService(config, source=source, context=AgentMapContext(agents={"Mail": lambda call: 1}))


@pytest.mark.parametrize("mode", [0o020, 0o002, 0o022])
@pytest.mark.parametrize("name", ["", "mine.py", "_shared.py", "__pycache__"])
def test_what_others_may_write_is_not_run(name: str, mode: int, folder: Path) -> None:
    """The folder and each file in it; the remedy is named."""
    put(folder, "mine.py", "@agent\ndef mine(call): ...\n")
    put(folder, "_shared.py", "")
    (folder / "__pycache__").mkdir(mode=0o755)
    place = folder / name if name else folder
    assert list(load_agents(folder)) == ["mine"]
    place.chmod(place.stat().st_mode | mode)
    with pytest.raises(ConfigError) as caught:
        load_agents(folder)
    assert f"chmod go-w {place}" in caught.value.message


def test_a_folder_is_needed(folder: Path) -> None:
    """A file or nothing in its place is refused, as is a file whose name cannot be a module's."""
    with pytest.raises(ConfigError, match="is not a folder"):
        load_agents(folder / "nothing")
    with pytest.raises(ConfigError, match="is not a folder"):
        load_agents(put(folder, "mine.py", ""))
    put(folder, "my-agent.py", "")
    with pytest.raises(ConfigError, match="only letters, digits and _"):
        load_agents(folder)


def test_a_file_without_agents_is_mentioned(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING: the mark was forgotten, or the file is for others."""
    put(folder, "forgotten.py", "def mail(call): ...\n")
    with caplog.at_level(logging.WARNING, "agentmap_asgi"):
        assert load_agents(folder) == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "forgotten.py has no agents: mark them with @agent" in caplog.text


def test_marks_leave_a_thing_as_it_is() -> None:
    """A marked function is called as before."""

    @agent
    def one(x: int) -> int:
        return x + 1

    @agent(name="two")
    def two(x: int) -> int:
        return x + 2

    assert (one(1), two(1)) == (2, 3)
