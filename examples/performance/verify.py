"""Two hundred executions in one request: a CSV goes in, a CSV comes out, and the pool holds."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import tempfile

FOLDER = tempfile.TemporaryDirectory()
os.environ["DATABASE_URL"] = f"sqlite:///{FOLDER.name}/counter.db"

from main import POOL, app, engine  # noqa: E402
from sqlalchemy import event, text  # noqa: E402

from agentmap_asgi.testing import AgentMapClient  # noqa: E402

most = 0


def noticed(*_: object) -> None:
    global most  # noqa: PLW0603
    most = max(most, engine.pool.checkedout())


async def main() -> None:
    event.listen(engine, "checkout", noticed)
    async with AgentMapClient(app) as http:
        rows = "number\n" + "".join(f"{number}\n" for number in range(200)) + "5,too much\n"
        headers = {"content-type": "text/csv", "accept": "text/csv"}
        answer = await http.post("/workflows/execute/batch?graph=Count", content=rows, headers=headers)
        found = list(csv.DictReader(io.StringIO(answer.text)))
        print(found[199]["text"], "and", found[200]["error_code"])
        assert [row["text"] for row in found[:200]] == [f"Wrote {number}" for number in range(200)]
        assert found[200]["status"] == "refused"
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM counts")).scalar_one() == 200
        print("connections at once:", most <= POOL and f"at most {POOL}")
        assert 0 < most <= POOL
        assert engine.pool.checkedout() == 0


if __name__ == "__main__":
    with FOLDER:
        asyncio.run(main())
