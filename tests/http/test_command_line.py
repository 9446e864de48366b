"""The command line, and what importing costs."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import agentmap_asgi
from agentmap_asgi import AgentMapService
from agentmap_asgi.__main__ import COMMANDS, main
from agentmap_asgi.http.keys import new_key

CSV = (
    "GraphName,Node,AgentType,Input_Fields,Output_Field,Prompt,Edge\n"
    "Hello,Greet,echo,name,greeting,Hello {name}!,\nAsk,Need,input,,answer,,\n"
    "Fail,Choose,orchestrator,name,choice,,End\nFail,End,success,,,,\n"
)
BROKEN = "GraphName,Node,AgentType,Output_Field,Edge\nBad,A,ecko,x,Nowhere\n"
COMMAND = [sys.executable, "-m", "agentmap_asgi"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "hello.csv"
    path.write_text(CSV)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_workflow_is_run(source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields from NAME=TEXT, from JSON, or from standard input; the document is JSON on standard output."""
    status, out, _ = run(capsys, "run", source, "Hello", "--input", "name=Ada=1")
    assert (status, json.loads(out)["result"]) == (0, {"name": "Ada=1", "greeting": "Hello Ada=1!"})
    status, out, _ = run(capsys, "run", source, "hello::Hello", "--json", '{"name": ["ä"], "n": 1}', "-i", "n=2")
    assert json.loads(out)["result"]["n"] == "2"
    assert "ä" in out
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"name": "Eve"}'))
    assert json.loads(run(capsys, "run", source, "Hello", "--json", "-")[1])["result"]["greeting"] == "Hello Eve!"


def test_a_run_that_fails_has_a_status(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 when the run failed or waits for an answer, 2 when it could not begin."""
    status, out, err = run(capsys, "run", source, "Ask")
    assert (status, json.loads(out)["status"]) == (1, "suspended")
    how = "give what it asks for with --input, or serve the workflow and answer it there"
    assert err == f"The run waits for an answer at Need; {how}\n"
    (source.parent / "sure.csv").write_text("GraphName,Node,AgentType,Output_Field\nSure,Check,human,sure\n")
    status, _, err = run(capsys, "run", source.parent / "sure.csv", "Sure")
    assert (status, err) == (1, "The run waits for an answer at Check; serve the workflow and answer it there\n")
    status, out, _ = run(capsys, "run", source, "Fail")
    assert (status, json.loads(out)["status"]) == (1, "failed")
    assert run(capsys, "run", source, "Helo") == (2, "", "There is no workflow 'Helo'; did you mean 'Hello'?\n")
    assert run(capsys, "run", source.parent / "nowhere", "Hello")[0] == 2


def test_a_run_looks_after_its_own_execution_only(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never looks for what other processes have left, whatever the settings say."""
    seen: list[float] = []
    execute = AgentMapService.execute_workflow

    async def watched(service: AgentMapService, *given: Any) -> dict[str, Any]:
        seen.append(service.config.patrol_seconds)
        return await execute(service, *given)

    monkeypatch.setenv("AGENTMAP_PATROL_SECONDS", "5")
    monkeypatch.setattr(AgentMapService, "execute_workflow", watched)
    assert run(capsys, "run", source, "Hello", "-i", "name=Ada")[0] == 0
    assert seen == [0.0]


def test_a_broken_workflow_says_what_is_wrong_with_it(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, and nothing about others."""
    (source.parent / "bad.csv").write_text(BROKEN)
    (source.parent / "others.csv").write_text(BROKEN.replace("Bad", "Other"))
    status, out, err = run(capsys, "run", source.parent, "Bad")
    assert (status, out) == (2, "")
    assert err.splitlines()[0] == "The workflow 'Bad' has errors and cannot be started:"
    assert [re.findall(r"^(\S+), row .*(AM-\w+)", line)[0] for line in err.splitlines()[1:]] == [
        ("bad.csv", "AM-A001"),
        ("bad.csv", "AM-R001"),
    ]
    assert run(capsys, "run", source.parent, "Hello", "-i", "name=Ada")[2] == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "SOURCE", "--prot", "8001"], "There is no argument --prot 8001 (see agentmap-asgi serve --help)"),
        (["check", "SOURCE", "more"], "There is no argument more (see agentmap-asgi check --help)"),
        (["serve", "SOURCE", "--port", "99999"], "a port is a number from 0 to 65535, not '99999'"),
        (["serve", "SOURCE", "--port", "-1"], "a port is a number from 0 to 65535, not '-1'"),
        (["serve", "SOURCE", "--port", "http"], "a port is a number from 0 to 65535, not 'http'"),
        (["serve", "nowhere"], "There is no workflow file or folder 'nowhere'"),
        (["serve"], "Say where the workflows are"),
        (["check"], "AGENTMAP_CSV_PATH"),
        (["serve", "SOURCE", "--config", "nowhere.toml"], "The settings file nowhere.toml cannot be read"),
        (["run", "SOURCE"], "The following arguments are required: GRAPH (see agentmap-asgi run --help)"),
        (["srve"], "invalid choice: 'srve'"),
        ([], "The following arguments are required: COMMAND"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], said: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, and the status is 2."""
    try:
        status: Any = main([str(source) if word == "SOURCE" else word for word in arguments])
    except SystemExit as exc:
        status = exc.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize("given", [["--json", "{"], ["--json", "[]"], ["--input", "name"], ["--input", "=x"]])
def test_inputs_that_are_none_are_refused(given: list[str], source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a sentence, before anything is read."""
    status, out, err = run(capsys, "run", source, "Hello", *given)
    assert (status, out) == (2, "")
    assert given[0] in err


def test_warnings_do_not_fail_a_check(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A header, a field and a text that are likely meant otherwise are to be noted, and the status is 0."""
    rows = "G,A,B,12,price,\nG,B,C,{prise},message,\nG,C,D,Hello,,\nG,D,,,,\n"
    (source.parent / "noted.csv").write_text(f"GraphName,Node,Edge,Prompt,Output_Field,Failure\n{rows}")
    status, out, _ = run(capsys, "check", source.parent / "noted.csv")
    assert (status, re.findall(r"^(\w+): .*(AM-\w+)", out, re.MULTILINE)) == (
        0,
        [("warning", "AM-H002"), ("warning", "AM-F008"), ("warning", "AM-F007")],
    )
    assert out.splitlines()[-1] == "1 workflow in 1 file: 0 errors, 3 to note"


def test_files_are_checked(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every diagnostic with its place; the status is 1 when one of them is an error."""
    status, out, _ = run(capsys, "check", source)
    assert (status, out.splitlines()[-1]) == (0, "3 workflows in 1 file: 0 errors, 0 to note")
    (source.parent / "bad.csv").write_text("GraphName,Node,AgentType,Edge\nG,A,ecko,B\n")
    status, out, _ = run(capsys, "check", source.parent)
    assert status == 1
    assert "bad.csv, row 2, column AgentType (C): AM-A001" in out
    assert out.splitlines()[-1] == "4 workflows in 2 files: 2 errors, 0 to note"
    status, out, _ = run(capsys, "check", source.parent, "--json")
    assert (status, {json.loads(line)["code"] for line in out.splitlines()}) == (1, {"AM-A001", "AM-R001"})


def test_programs_find_files_from_here(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Annotations and logs name files below the folder where the check runs, as a repository has them."""
    bad = source.parent / "flows of ours" / "bad.csv"
    bad.parent.mkdir()
    bad.write_text("GraphName,Node,AgentType\nG,A,ecko\n")
    monkeypatch.chdir(source.parent)
    for named in ("flows of ours", bad):
        out = run(capsys, "check", named, "--format", "github")[1]
        assert out.startswith("::error file=flows of ours/bad.csv,")
        log = json.loads(run(capsys, "check", named, "--format", "sarif")[1])
        place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "flows%20of%20ours/bad.csv"


def test_files_are_mended(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--fix` writes what needs no decision, then checks; the other formats are for programs."""
    bad = source.parent / "bad.csv"
    bad.write_text("GraphName,Node,AgentType,Edge\nG,A,ecko,B\n,B,echo,\n")
    status, out, _ = run(capsys, "check", bad, "--format", "github")
    assert (status, out.startswith(f"::error file={bad},")) == (1, True)
    assert json.loads(run(capsys, "check", bad, "--format", "sarif")[1])["version"] == "2.1.0"
    status, out, err = run(capsys, "check", bad, "--fix")
    assert (status, out, err) == (0, "1 workflow in 1 file: 0 errors, 0 to note\n", "bad.csv: 2 cells mended\n")
    assert bad.read_text() == "GraphName,Node,AgentType,Edge\nG,A,echo,B\nG,B,echo,\n"
    bad.write_text('Node\n"A')
    assert run(capsys, "check", bad, "--fix")[0] == 1


def test_checking_looks_at_the_single_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A field that one path leaves out is reported where it is read."""
    rows = ["A,branching,B,C,x,,", "B,,,,,text,D", "C,,,,,,D", "D,,,,text,,"]
    header = "GraphName,Node,AgentType,Success_Next,Failure_Next,Input_Fields,Output_Field,Edge\n"
    (tmp_path / "paths.csv").write_text(header + "".join(f"G,{row}\n" for row in rows))
    status, out, _ = run(capsys, "check", tmp_path)
    assert status == 0
    assert out.count("AM-F001") == 1
    assert "row 5, column Input_Fields" in out


def test_workflows_are_drawn(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mermaid, DOT or JSON."""
    assert run(capsys, "graph", source, "Hello")[1].startswith("flowchart")
    assert run(capsys, "graph", source, "Hello", "--format", "dot")[1].startswith("digraph")
    assert run(capsys, "graph", source, "Hello", "--format", "svg")[1].startswith("<svg")
    assert json.loads(run(capsys, "graph", source, "Hello", "--format", "json")[1])["name"] == "Hello"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The one of the package."""
    assert run(capsys, "version") == (0, f"agentmap-asgi {agentmap_asgi.__version__}\n", "")
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"agentmap-asgi {agentmap_asgi.__version__}\n")


def test_a_reader_may_stop_early(source: Path) -> None:
    """As `head` does; that is no error of ours."""
    source.write_text("GraphName,Node,AgentType\n" + "".join(f"G{number},A,ecko\n" for number in range(2_000)))
    command = subprocess.Popen([*COMMAND, "check", str(source)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stderr is not None
    assert b"AM-A001" in command.stdout.readline()
    command.stdout.close()
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(20) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_a_server_without_authentication_is_for_this_machine(
    host: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any other address is refused, with what to do instead."""
    status, out, err = run(capsys, "serve", source, "--host", host)
    assert (status, out) == (2, "")
    assert "authenticate" in err


def test_a_server_with_keys_is_for_everyone(source: Path) -> None:
    """It may listen on any address, and the lines to try name the header."""
    secret, key = new_key("ci", ["run", "read"])
    server = Server(source, "--host", "0.0.0.0", env={"AGENTMAP_API_KEYS": key.line})
    try:
        assert "-H 'X-API-Key: KEY'" in server.welcome
        base = server.base.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(base + "/list").status_code == 401
        assert httpx.get(base + "/list", headers={"x-api-key": secret}).status_code == 200
        assert httpx.get(base + "/health", headers={"x-api-key": secret}).status_code == 403
    finally:
        errors = server.stop()
    assert secret not in errors + server.welcome


def test_a_server_without_keys_answers_under_its_own_names(source: Path) -> None:
    """A page that gives its own name this machine's address is refused; names that are allowed are not."""
    server = Server(source, "--allow-host", "flows.example.com")
    try:
        assert httpx.get(server.base + "/list", headers={"host": "flows.example.com"}).status_code == 200
        refused = httpx.get(server.base + "/list", headers={"host": "evil.example"})
        assert (refused.status_code, refused.json()["code"]) == (421, "unknown_host")
        assert "--allow-host" in refused.json()["detail"]
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("AGENTMAP_REQUIRE_API_KEY", "true", "agentmap-asgi keys new"),
        ("AGENTMAP_API_KEYS", "amk_pasted", "Line 1 of api_keys"),
    ],
)
def test_a_server_whose_keys_are_wrong_does_not_start(variable: str, text: str, message: str, source: Path) -> None:
    """A sentence, which does not repeat the key, and the status 2."""
    command = [*COMMAND, "serve", str(source), "--port", "0"]
    env = {**os.environ, variable: text}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert "amk_pasted" not in ended.stderr
    assert "Traceback" not in ended.stderr


class Server:
    """`agentmap-asgi serve` as a process."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        command = [*COMMAND, "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )
        assert self.process.stdout is not None
        self.welcome = ""
        while "Ctrl+C" not in self.welcome:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(self.process.communicate()[1])
            self.welcome += line
        found = re.search(r"http://\S+:\d+", self.welcome)
        assert found is not None
        self.base = found[0]

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=20)
        return errors


@pytest.fixture
def server(source: Path) -> Iterator[Server]:
    (source.parent / "bad.csv").write_text("GraphName,Node,AgentType\nBad,A,ecko\n")
    server = Server(source.parent)
    yield server
    if server.process.poll() is None:
        server.stop()


def test_the_lines_to_try_work(server: Server) -> None:
    """Every curl that `serve` prints is answered with 200; the broken workflow is mentioned and not among them."""
    assert "4 workflows" in server.welcome
    assert "1 of them with errors" in server.welcome
    tried = [shlex.split(line) for line in server.welcome.splitlines() if line.strip().startswith("curl")]
    assert len(tried) == 4
    for words in tried:
        headers = dict([word.split(": ", 1) for word in words if word.startswith("Content-Type")])
        body = words[words.index("-d") + 1] if "-d" in words else None
        answer = httpx.request("POST" if body else "GET", words[1], content=body, headers=headers)
        assert answer.status_code == 200, words
    assert '"initial_state": {"name": "text"}' in server.welcome


def test_a_server_says_what_is_broken(source: Path) -> None:
    """One line for each file, with the command that says more; and that nobody is asked for a key."""
    (source.parent / "bad.csv").write_text(BROKEN)
    (source.parent / "worse.csv").write_text("nothing,here\n")
    server = Server(source.parent)
    assert server.stop().splitlines() == [
        f"Warning: bad.csv has 2 errors; see: agentmap-asgi check {source.parent}",
        f"Warning: worse.csv has 1 error; see: agentmap-asgi check {source.parent}",
        "Note: without API keys every program on this machine may call this server (agentmap-asgi keys new)",
    ]
    settings = source.parent / "agentmap.toml"
    for number in range(6):
        (source.parent / f"b{number}.csv").write_text(BROKEN.replace("Bad", f"Bad{number}"))
    settings.write_text('csv_path = "."\n')
    said = Server("--config", settings, env={"AGENTMAP_API_KEYS": new_key("ci", ["run"])[1].line}).stop().splitlines()
    assert said[0] == f"Warning: b0.csv has 2 errors; see: agentmap-asgi check --config {settings}"
    assert (len(said), said[5]) == (6, "Warning: 3 more files have errors")


def test_a_server_with_nothing_to_serve_says_so(tmp_path: Path) -> None:
    """The files may come later."""
    assert f"Warning: there are no workflow files in {tmp_path}" in Server(tmp_path).stop().splitlines()


def test_a_real_server_answers(server: Server) -> None:
    """Requests over a socket: kept alive, chunked, and hostile; it stops when it is told to."""
    with httpx.Client(base_url=server.base) as http:
        for _ in range(3):
            answer = http.post("/execute/Hello", json={"inputs": {"name": "Ada"}})
            assert answer.json()["outputs"]["greeting"] == "Hello Ada!"
        kind = {"content-type": "application/json"}
        chunked = http.post("/execute", content=iter([b'{"graph_name":', b' "Hello"}']), headers=kind)
        assert chunked.json()["success"] is True
        assert http.post("/execute", content=b"{", headers=kind).status_code == 400
        assert http.head("/list").content == b""
        assert http.get("/ready").json()["ready"] is True
        large = http.post("/execute", content=b" " * 2_000_000, headers=kind)
        assert large.status_code == 413
    assert "Traceback" not in server.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_store_that_cannot_be_used_is_one_line(workers: str, source: Path) -> None:
    """Before anything is served: the reason on standard error, and the status 2."""
    (source.parent / "notes.db").write_text("These are notes.")
    command = [*COMMAND, "serve", str(source), "--port", "0", "--workers", workers]
    env = {**os.environ, "AGENTMAP_STORAGE_URL": f"sqlite:///{source.parent / 'notes.db'}"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert str(source.parent / "notes.db") in ended.stderr


def test_a_namespace_of_other_workflows_is_one_line(source: Path) -> None:
    """A store is not served with other workflows under the same namespace at the same time."""
    env = {"AGENTMAP_STORAGE_URL": f"sqlite:///{source.parent / 'own.db'}", "AGENTMAP_NAMESPACE": "shared"}
    (source.parent / "other.csv").write_text(CSV)
    server = Server(source, env=env)
    try:
        httpx.post(f"{server.base}/execute/Hello", json={"inputs": {"name": "Ada"}})
        command = [*COMMAND, "serve", str(source.parent / "other.csv"), "--port", "0"]
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **env}, timeout=60
        )
    finally:
        server.stop()
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "'shared'" in ended.stderr


def test_a_server_says_where_executions_are_kept(source: Path) -> None:
    """The whole path of the file, or that they are in memory."""
    server = Server(source, env={"AGENTMAP_STORAGE_URL": f"sqlite:///{source.parent / 'own.db'}"})
    server.stop()
    assert f"Executions are kept in {source.parent / 'own.db'}\n" in server.welcome
    server = Server(source, env={"AGENTMAP_STORAGE_URL": "memory://"})
    server.stop()
    assert "Executions are kept in memory\n" in server.welcome


def test_the_lines_to_try_have_the_address_and_the_prefix(source: Path) -> None:
    """A server that listens everywhere is tried on this machine, under its prefix."""
    keys = {"AGENTMAP_API_KEYS": new_key("ci", ["run"])[1].line}
    server = Server(source, "--host", "0.0.0.0", "--root-path", "flows", env=keys)
    server.stop()
    assert "0.0.0.0" not in server.welcome
    assert re.search(r"curl http://127\.0\.0\.1:\d+/flows/list ", server.welcome)


def test_a_prefix_is_served_stripped_or_not(source: Path) -> None:
    """`--root-path` is what a proxy adds; links carry it."""
    server = Server(source, "--root-path", "/flows/")
    try:
        for path in ("/list", "/flows/list"):
            listed = httpx.get(server.base + path).json()
            assert listed["workflows"][0]["links"]["self"] == "/flows/workflows/hello::Hello"
    finally:
        server.stop()


def test_settings_come_from_the_environment(source: Path) -> None:
    """`AGENTMAP_*`; a bad one is named."""
    server = Server(source, env={"AGENTMAP_ENABLE_DOCS": "false"})
    try:
        assert httpx.get(server.base + "/openapi.json").status_code == 404
    finally:
        server.stop()
    command = [*COMMAND, "serve", str(source)]
    env = {**os.environ, "AGENTMAP_MAX_STEPS": "many"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert ended.returncode == 2
    assert "AGENTMAP_MAX_STEPS" in ended.stderr


def test_settings_come_from_a_file(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named by `--config`; variables win over it, and the argument over both; a bad name is a sentence."""
    agents = source.parent / "agents"
    agents.mkdir(mode=0o755)
    (agents / "shout.py").write_text("from agentmap_asgi import agent\n@agent\ndef shout(call): return 'LOUD'\n")
    (agents / "shout.py").chmod(0o644)
    (source.parent / "loud.csv").write_text("GraphName,Node,AgentType,Output_Field\nLoud,A,shout,said\n")
    file = source.parent / "agentmap.toml"
    file.write_text('csv_path = "loud.csv"\ncustom_agents_path = "agents"\nenable_docs = false\nlog_level = "DEBUG"\n')
    server = Server("--config", file, env={"AGENTMAP_ENABLE_DOCS": "true"})
    try:
        assert "1 workflow on" in server.welcome
        assert httpx.post(server.base + "/execute", json={"graph_name": "Loud"}).json()["result"] == {"said": "LOUD"}
        assert httpx.get(server.base + "/openapi.json").status_code == 200
    finally:
        server.stop()
    status, out, _ = run(capsys, "run", source.parent / "loud.csv", "Loud", "--config", file)
    assert (status, json.loads(out)["result"]) == (0, {"said": "LOUD"})
    assert run(capsys, "check", "--config", file)[1].startswith("1 workflow in 1 file: 0 errors")
    assert run(capsys, "check", source, "--config", file)[1].startswith("3 workflows in 1 file")
    file.write_text("max_stepps = 5\n")
    status, out, err = run(capsys, "check", source, "--config", file)
    assert (status, out) == (2, "")
    assert err == f"The settings file {file}: There is no setting 'max_stepps'; did you mean 'max_steps'?\n"
    assert "Say where the workflows are" in run(capsys, "check")[2]


def test_the_level_of_the_log_is_a_setting(source: Path) -> None:
    """`AGENTMAP_LOG_LEVEL=DEBUG` shows why a node failed."""
    server = Server(source, env={"AGENTMAP_LOG_LEVEL": "debug"})
    httpx.post(server.base + "/execute", json={"graph_name": "Fail"})
    assert "DEBUG agentmap_asgi" in server.stop()


def test_a_port_that_is_taken_is_a_sentence(server: Server, source: Path) -> None:
    """Not a traceback."""
    port = server.base.rpartition(":")[2]
    ended = subprocess.run(
        [*COMMAND, "serve", str(source), "--port", port], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        f"Cannot listen on 127.0.0.1 port {port}: another program listens there; --port 0 takes a free one\n"
    )


def loaded(script: str) -> set[str]:
    code = f"{script}\nimport sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return {name.partition(".")[0] for name in found}


def test_importing_the_package_imports_little(source: Path) -> None:
    """Neither FastAPI nor a server nor Starlette; an app brings Starlette and pydantic, and no graph library."""
    heavy = {"fastapi", "uvicorn", "networkx", "httpx", "starlette", "pydantic"}
    assert loaded("import agentmap_asgi") & heavy == set()
    assert loaded("import agentmap_asgi; agentmap_asgi.AgentMapApp") & heavy == {"starlette"}
    made = f"import agentmap_asgi; agentmap_asgi.AgentMapApp({str(source)!r})"
    assert loaded(made) & heavy == {"starlette", "pydantic"}
    assert loaded("import agentmap_asgi.__main__") & heavy == set()
    assert "networkx" not in loaded("import fastapi, agentmap_asgi; agentmap_asgi.include_agentmap_routes")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_module(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the name that the table of commands has; it describes its own arguments, and no other command is imported."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: agentmap-asgi {name} ")
    code = f"""
import contextlib, sys
from agentmap_asgi.__main__ import main
with contextlib.suppress(SystemExit):
    main([{name!r}, "--help"])
print(*sys.modules)
"""
    ended_well = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed = ended_well.stdout.splitlines()[-1]
    modules = {name.rpartition(".")[2] for name in printed.split() if name.startswith("agentmap_asgi.commands.")}
    assert modules & set(COMMANDS) == {name}


def test_serving_does_not_need_fastapi(source: Path) -> None:
    """A machine without it serves, and the one name that needs it says so."""
    script = f"""
import sys
sys.modules["fastapi"] = None
import agentmap_asgi
agentmap_asgi.AgentMapApp({str(source)!r})
try:
    agentmap_asgi.include_agentmap_routes
except ImportError as exc:
    assert "agentmap-asgi[fastapi]" in str(exc), exc
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_names_that_are_not_there_are_errors() -> None:
    """As for any module."""
    missing: Any = agentmap_asgi
    with pytest.raises(AttributeError, match="AgentMapp"):
        missing.AgentMapp  # noqa: B018
