"""Looks at everything that leaves, and at what is written down."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

FOLDER = tempfile.TemporaryDirectory()
os.environ["AUDIT_PATH"] = str(Path(FOLDER.name) / "audit.jsonl")

from main import app  # noqa: E402
from phi import unseal  # noqa: E402

from agentmap_asgi.testing import AgentMapClient  # noqa: E402


async def main() -> None:
    async with AgentMapClient(app, headers={"x-user": "dora"}) as http:
        state = {"patient_name": "Zoe Doe", "ssn": "078-05-1120"}
        body = {"graph_name": "PatientSummary", "initial_state": state}
        answer = await http.post("/care/workflows/execute", json=body)
        batch = await http.post("/care/workflows/execute/batch", json={"executions": [body]})
        assert "Zoe" not in answer.text + batch.text
        result = answer.json()["result"]
        print("on the wire:", result["summary"])
        assert unseal(result["summary"]) == "Zoe Doe is well"
        assert "ssn" not in result

        appointment = {"patient_id": 4, "patient_name": "Zoe Doe", "type": "yearly"}
        assert (await http.post("/appointments", json=appointment)).json() == {"care_plan": "A yearly plan"}
        assert (await http.get("/care/workflows/list", headers={"x-user": "ada"})).status_code == 403

        assert (await http.get("/care/workflows/audit")).status_code == 403
        lines = (await http.get("/care/workflows/audit", headers={"x-user": "vera"})).json()
        assert "dora" in str(lines)


def look_at_the_log() -> None:
    written = Path(os.environ["AUDIT_PATH"]).read_text(encoding="utf-8")
    print("the audit log has", len(written.splitlines()), "lines and no name")
    assert "PatientSummary" in written
    assert "Zoe" not in written


if __name__ == "__main__":
    with FOLDER:
        asyncio.run(main())
        look_at_the_log()
