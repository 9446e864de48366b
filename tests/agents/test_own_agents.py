"""Agents of installed packages, and the beginnings of agents that `scaffold` writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, service, write

from agentmap_asgi.__main__ import main
from agentmap_asgi.errors import ConfigError

CODE = """
from agentmap_asgi import agent

@agent(summary="Shouts.", options={"sign": str})
def shout(call):
    return call.inputs["text"].upper() + call.options.get("sign", "")

class QuietAgent:
    def process(self, inputs):
        return inputs["text"].lower()

broken = 5
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a package with these entry points, for one test."""
    site = tmp_path / "site"
    name = f"loud_{abs(hash(str(tmp_path))) % 10**8}"
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    site.joinpath(f"{name}.py").write_text(CODE)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")

    def install(**points: str) -> None:
        lines = "".join(f"{point} = {name}:{target}\n" for point, target in points.items())
        info.joinpath("entry_points.txt").write_text(f"[agentmap_asgi.agents]\n{lines}")
        monkeypatch.syspath_prepend(str(site))

    return install


@pytest.mark.anyio
@pytest.mark.blocks
async def test_agents_of_installed_packages_are_there(tmp_path: Path, package: Any) -> None:
    """Functions and classes, with what they declare; the host's own win over them."""
    package(shout="shout", quiet="QuietAgent")
    rows = [
        node("A", "Shout", inputs="text", output="loud", context={"sign": "!"}, edge="B"),
        node("B", "quiet", inputs="text", output="soft"),
    ]
    document = await run(tmp_path, rows, {"text": "Hey"})
    assert (document["result"]["loud"], document["result"]["soft"]) == ("HEY!", "hey")
    document = await run(tmp_path, rows, {"text": "Hey"}, agents={"quiet": lambda call: "mine"})
    assert document["result"]["soft"] == "mine"


def test_what_is_built_in_is_not_replaced(tmp_path: Path, package: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By whatever is installed; a line in the log says so."""
    package(echo="shout")
    made = service(tmp_path, [node("A", "echo")])
    assert made.registry["echo"].compile is not None
    assert "'echo' of loud is left out" in caplog.text


@pytest.mark.parametrize(("target", "words"), [("gone", "AttributeError"), ("broken", "is a int")])
def test_a_package_that_cannot_be_used_is_named(target: str, words: str, tmp_path: Path, package: Any) -> None:
    """With the agent and the reason."""
    package(mine=target)
    with pytest.raises(ConfigError) as caught:
        service(tmp_path, [node("A", "echo")])
    assert "'mine' of loud" in caught.value.message
    assert words in caught.value.message


ROWS = [
    node(
        "A",
        "Weather",
        inputs="city|day.date:date",
        output="report",
        edge="B",
        context={"unit": "C", "days": 3, "retry": 2},
    ),
    node("B", "weather_agent", inputs="city", output="report", prompt="For {city}", edge="C"),
    node("C", "class", inputs="1st|import", output="a|b", edge="D", context={"key": "secret:K"}),
    node("D", 'x"); import os; os.abort() #', edge="E"),
    node("E", "echo"),
]


def test_agents_are_begun_with_their_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module and a test for each unknown type, which run, and pass once the agent does something."""
    write(tmp_path, ROWS)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o002)  # others of the group may write, which the loader of agents refuses
    try:
        assert main(["scaffold", "flows.csv", "--into", "own/agents", "--tests", "own/tests"]) == 0
    finally:
        os.umask(before)
    out = capsys.readouterr().out
    assert "Weather (Flow/A, Flow/B)\n  own/agents/weather.py\n  own/tests/test_weather.py\n" in out
    assert 'custom_agents_path = "own/agents"' in out
    agents = sorted(path.name for path in (tmp_path / "own" / "agents").glob("*.py"))
    assert agents == ["class_agent.py", "weather.py", "x_import_os_os_abort.py"]
    weather = tmp_path / "own" / "agents" / "weather.py"
    text = weather.read_text()
    assert "options={'unit': str, 'days': int}" in text
    assert "    date = call.inputs['date']\n" in text

    made = service(tmp_path, ROWS, config={"custom_agents_path": "own/agents"})
    assert [one for one in made.get_workflow_definition("Flow")["diagnostics"] if one["severity"] == "error"] == []

    def tested() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "own/tests/test_weather.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    first = tested()
    assert "The agent Weather is not written yet" in first.stdout, first.stdout + first.stderr
    weather.write_text(
        text.replace("raise NotImplementedError('The agent Weather is not written yet')", "return 'fine'")
    )
    second = tested()
    assert second.returncode == 0, second.stdout

    assert main(["scaffold", "flows.csv", "--into", "own/agents", "--tests", "own/tests"]) == 1
    assert "weather.py exists already" in capsys.readouterr().out
    assert "return 'fine'" in weather.read_text()


def test_a_file_without_unknown_types_needs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that is not there is said to be so."""
    path = write(tmp_path, [node("A", "echo")])
    assert main(["scaffold", str(path), "--into", str(tmp_path / "agents")]) == 0
    assert "nothing to write" in capsys.readouterr().out
    assert not (tmp_path / "agents").exists()
    assert main(["scaffold", str(tmp_path / "gone.csv")]) == 2
