"""Tests that are written in a sheet: run by `agentmap-asgi test` and by pytest, made of executions by `record`."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentmap_asgi import AgentMapConfig, AgentMapService
from agentmap_asgi.__main__ import main
from agentmap_asgi.cases import is_case_file, read_cases, value_of
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.workflows import converting

FLOWS = """\
GraphName,Node,AgentType,Input_Fields,Output_Field,Prompt,Edge,Success_Next,Failure_Next,Context
Greet,Ask,bank,name,score,,Decide,,,
Greet,Decide,branching,score,,,,Yes,No,
Greet,Yes,echo,name,said,Hello {name},,,,
Greet,No,echo,name,said,Bye {name},,,,
Wait,Ask,human,,answer,May I?,,Yes,No,{type=approval}
Wait,Yes,default,,said,yes,,,,
Wait,No,default,,said,no,,,,
Pick,Choose,switch,,,,,,,"{""field"": ""kind"", ""cases"": {""a"": ""A""}}"
Pick,A,echo,,said,a,,,,
Plain,A,echo,name,said,,,,,
"""
CASES = """\
# the bank is not asked
case,workflow,input.name,mock.Ask,expect.said,expect.status,expect.error

good,Greet,Ada,TRUE,Hello Ada,completed,
bad,flow::Greet,Bob,false,Bye Bob,,
down,Greet,Bob,error: no bank,,,agent_error
approved,Wait,,"{""approved"": true, ""by"": ""Eve""}",yes,,
rejected,Wait,,"{""approved"": false}",no,,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flow.csv").write_text(FLOWS)
    (tmp_path / "cases.csv").write_text(CASES)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    return (status, *capsys.readouterr())


def test_cases_are_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mocks answer for agents that are not there, wait for people, or fail; files beside the workflows are found."""
    status, out, _ = run(capsys, "test", folder)
    assert (status, out.splitlines()[-1]) == (0, "5 passed, 0 failed"), out
    status, out, _ = run(capsys, "check", folder)
    assert "1 file:" in out, "a case file is no workflow file"


def test_what_is_otherwise_is_named_by_its_cell(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was expected and what came; the status is 1."""
    cases = folder / "more.cases.csv"
    cases.write_text(
        "case,workflow,mock.Ask,expect.said,expect.status,expect.score.of,expect.error\n"
        "a,Greet,TRUE,Hi,failed,1,\nb,Greet,error: x,,,,\nc,Nope,,,,,\nd,Greet,,,,,\n"
    )
    status, out, _ = run(capsys, "test", folder / "flow.csv", cases)
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == "failed  a"
    place = f"        {cases}, row 2, column"
    assert lines[1] == f'{place} expect.said (D): expected Hi, got "Hello null"'
    assert lines[2] == f"{place} expect.status (E): expected 'failed', got 'completed'"
    assert lines[3] == f"{place} expect.score.of (F): expected 1, but the result has no 'score.of'"
    assert "row 3: the execution is failed" in lines[5]
    assert "row 4: " in lines[7]
    assert any("AM-A001" in line for line in lines[8:])
    assert lines[-1] == "0 passed, 4 failed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,workflw\na,b\n", "row 1: there is no column 'workflow'"),
        ("case,workflow,inptu.x\n", "'inptu.x' is no column of a case file; did you mean input.x?"),
        ("case,workflow,other\n", "column C: 'other' is no column of a case file; use input.…"),
        ("case,workflow\na,\n", "row 2: the case 'a' names no workflow"),
        ("case,workflow\na,b,c\n", "row 2: there are more cells"),
        ('case,workflow\na,"b\n', "is not closed"),
    ],
)
def test_case_files_that_are_not_understood(tmp_path: Path, text: str, said: str) -> None:
    """The place and what to do."""
    path = tmp_path / "cases.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_cases(path)
    assert said in caught.value.message
    with pytest.raises(ConfigError, match="cannot be read"):
        read_cases(tmp_path / "none.csv")


def test_mocks_must_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node that is not there has a near name; one that chooses the way is not mocked."""
    cases = folder / "cases.csv"
    cases.write_text("case,workflow,mock.Aks,mock.Choose\na,Greet,1,\nb,Pick,,A\n")
    status, out, _ = run(capsys, "test", folder)
    assert status == 1
    assert "no node 'Aks' to be mocked; did you mean mock.Ask?" in out
    assert "'Choose' chooses where the workflow goes" in out


def test_without_cases_there_is_nothing_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 2."""
    (tmp_path / "flow.csv").write_text(FLOWS)
    status, _, err = run(capsys, "test", tmp_path)
    assert (status, "no case files" in err) == (2, True)


def test_cases_may_stand_in_a_workbook(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Typed cells read as they look."""
    (folder / "cases.csv").unlink()
    rows = [["case", "workflow", "input.name", "expect.said"], ["x", "Plain", "Ada", "Ada"]]
    (folder / "x.cases.xlsx").write_bytes(converting.to_workbook(rows, "Cases"))
    assert run(capsys, "test", folder)[1] == "passed  x\n1 passed, 0 failed\n"


def test_cells_are_json_or_texts() -> None:
    """A text that would be something else stands in quotes."""
    texts = ["5", '"5"', "TRUE", "true", "Ada", '{"a": 1}', "{a", "null"]
    assert [value_of(text) for text in texts] == [5, "5", True, True, "Ada", {"a": 1}, "{a", None]
    names = ["cases.csv", "a.Cases.xlsx", "cases.txt", "showcases.csv", "flow.csv"]
    assert [is_case_file(Path(name)) for name in names] == [True, True, False, False, False]


def test_executions_become_cases(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What people answered becomes a mock, and the case passes."""
    monkeypatch.delenv("AGENTMAP_STORAGE_URL", raising=False)
    config = AgentMapConfig(storage_url=f"sqlite:///{folder}/store.db", namespace="n")

    async def execute() -> list[str]:
        service = AgentMapService(config, source=folder / "flow.csv")
        plain = await service.execute_workflow("Plain", {"name": "5"})
        waits = await service.execute_workflow("Wait", {})
        await service.resume_execution(waits["execution_id"], "approve")
        await service.until_settled(waits["execution_id"], 30)
        await service.aclose()
        return [plain["execution_id"], waits["execution_id"]]

    identities = asyncio.run(execute())
    settings = folder / "settings.toml"
    settings.write_text(f'storage_url = "{config.storage_url}"\nnamespace = "n"\n')
    status, text, err = run(capsys, "record", folder / "flow.csv", "--config", settings, *identities)
    assert status == 0, err
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["input.name"] for row in rows] == ['"5"', ""]
    assert [row["expect.said"] for row in rows] == ['"5"', "yes"]
    assert '"approved": true' in rows[1]["mock.Ask"]
    (folder / "cases.csv").write_text(text)
    assert run(capsys, "test", folder)[1].endswith("2 passed, 0 failed\n")


def pytest_of(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**environment, "PYTHONPATH": str(folder)}
    )


def test_pytest_runs_cases(folder: Path) -> None:
    """Where `agentmap_workflows` is set; a host's agents come from `agentmap_context`."""
    (folder / "host.py").write_text(
        "from agentmap_asgi import AgentMapContext\n\n"
        "def context():\n    return AgentMapContext(agents={'bank': lambda call: call.inputs['name'] == 'Ada'})\n"
    )
    (folder / "cases.csv").write_text(
        "case,workflow,input.name,expect.said\ngood,Greet,Ada,Hello Ada\nwrong,Greet,Bob,Hello Bob\n"
    )
    (folder / "bad.cases.csv").write_text("case\nx\n")
    (folder / "pytest.ini").write_text("[pytest]\nagentmap_workflows = flow.csv\nagentmap_context = host:context\n")
    ended = pytest_of(folder, "cases.csv")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "1 failed, 1 passed" in ended.stdout
    assert 'column expect.said (D): expected Hello Bob, got "Bye Bob"' in ended.stdout
    assert "Greet: wrong" in ended.stdout
    assert "there is no column 'workflow'" in pytest_of(folder, "bad.cases.csv").stdout


def test_other_suites_do_not_notice(folder: Path) -> None:
    """Case files are not collected, and nothing of the package is imported but the plugin."""
    (folder / "test_x.py").write_text(
        "import sys\n\ndef test_x():\n"
        "    found = {n for n in sys.modules if n.startswith('agentmap_asgi.')}\n"
        "    assert found <= {'agentmap_asgi.pytest_plugin'}\n"
    )
    ended = pytest_of(folder)
    assert (ended.returncode, "1 passed" in ended.stdout) == (0, True), ended.stdout + ended.stderr


def test_the_document_of_a_case_is_compared_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A field with a dot in its name is found, too."""
    cases: Any = folder / "cases.csv"
    cases.write_text(
        'case,workflow,input.name,expect.name.first,expect.said\na,Plain,"{""first"": ""A""}",A,"{""first"": ""A""}"\n'
    )
    assert run(capsys, "test", folder)[0] == 0
