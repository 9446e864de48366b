"""The examples do what their pages say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentmap_asgi import AgentMapService
from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.workflows.loader import read_workflows

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*/verify.py"))
SERVED = sorted((EXAMPLES / "workflows").glob("*.csv"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parent.name)
def test_an_example_verifies_itself(script: Path, tmp_path: Path) -> None:
    """It ends well, from any folder, without a warning, and says what it showed. At most it leaves its store there."""
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert [left.name for left in tmp_path.iterdir()] in ([], ["agentmap_data"])


@pytest.mark.parametrize("folder", sorted(path.parent for path in SCRIPTS), ids=lambda path: path.name)
def test_an_example_has_a_page(folder: Path) -> None:
    """A README that names the script."""
    assert f"examples/{folder.name}/verify.py" in (folder / "README.md").read_text(encoding="utf-8")


PACKAGES = {
    "fastapi": r"agentmap-asgi\[[\w,]*fastapi",
    "providers": r"agentmap-asgi\[[\w,]*llm",
    "enable_metrics": r"agentmap-asgi\[[\w,]*metrics",
    "AgentMapClient": "httpx",
    "httpx": "httpx",
    "sqlalchemy": "sqlalchemy",
    "import pytest": "pytest",
}
"""What a program names, and how its page says that it is needed."""


@pytest.mark.parametrize("folder", sorted(path.parent for path in SCRIPTS), ids=lambda path: path.name)
def test_a_page_names_what_the_example_needs(folder: Path) -> None:
    """The extras and packages that its programs import, in one command."""
    programs = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    (command,) = re.findall(r"`pip install (.+?)`", (folder / "README.md").read_text(encoding="utf-8"))
    assert command.startswith('"agentmap-asgi')
    for word, needed in PACKAGES.items():
        assert (word in programs) <= (re.search(needed, command) is not None), f"{word}: {command}"


@pytest.mark.parametrize("file", SERVED, ids=lambda path: path.name)
def test_the_served_workflows_are_spotless(file: Path) -> None:
    """Not one diagnostic, and only built-in agents."""
    assert read_workflows(file.read_bytes(), file.name, registry=BUILTINS).findings == ()


def test_the_examples_say_what_they_take() -> None:
    """What nobody must give is asked for by an `input` node."""
    service = AgentMapService(source=EXAMPLES / "workflows")
    for workflow in service.catalogue.workflows:
        schema = service.get_workflow_schema(workflow.name)
        asked = {field for node in workflow.nodes.values() if node.agent_type == "input" for field in node.outputs}
        assert {*schema["required"], *asked} == {*schema["properties"]}, workflow.name
