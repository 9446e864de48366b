"""A list of contacts as people type them becomes a clean one; running it again changes nothing."""

from __future__ import annotations

import asyncio
import csv
import tempfile
from pathlib import Path

from agentmap_asgi import AgentMapConfig, AgentMapService

HERE = Path(__file__).parent
MESSY = """\
name;email;phone;since
ada  LOVELACE;Ada@Example.org ;044 123 45 67;1.3.2024
Alan Turing;alan@example.org;0049 30 1234;2024-03-02

ada lovelace;ada@example.org;+41 44 123 45 67;01/03/2024
Grace Hopper;grace(at)example.org;;2024-03-03
=HYPERLINK("http://evil");eve@example.org;-;03.03.2024
Nobody;;;
Kurt Gödel;kurt@example.org;044 765 43 21;soon
"""


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


async def main(folder: Path) -> None:
    inbox, data = folder / "inbox", folder / "data"
    config = AgentMapConfig(
        csv_path=str(HERE / "workflows.csv"),
        custom_agents_path=str(HERE / "custom_agents"),
        data_roots=[str(data), f"inbox={inbox}:ro"],
        storage_url="memory://",
    )
    service = await asyncio.to_thread(AgentMapService, config)

    first = await service.execute_workflow("Clean", {"file": "contacts.csv"})
    assert first["success"], first["error"]
    print(first["result"]["report"])
    contacts = table(data / "contacts.csv")
    for contact in contacts:
        print("  " + ", ".join(contact.values()))
    assert [contact["email"] for contact in contacts] == ["ada@example.org", "alan@example.org", "eve@example.org"]
    assert contacts[0] == {
        "email": "ada@example.org",
        "name": "Ada Lovelace",
        "phone": "+41441234567",
        "since": "2024-03-01",
    }
    assert contacts[2]["name"].startswith("'="), "no spreadsheet calculates what somebody typed"
    rejected = table(data / "rejected.csv")
    for row in rejected:
        print(f"to look at: {row['name']}: {row['reason']}")
    assert [row["name"] for row in rejected] == ["Grace Hopper", "Kurt Gödel"]

    before = (data / "contacts.csv").read_bytes()
    second = await service.execute_workflow("Clean", {"file": "contacts.csv"})
    print(second["result"]["report"])
    assert second["result"]["kept"]["rows_added"] == 0
    assert (data / "contacts.csv").read_bytes() == before

    outside = await service.execute_workflow("Clean", {"file": "../../etc/passwd"})
    assert outside["error"]["code"] == "not_allowed"
    print(f"refused: {outside['error']['message']}")
    await service.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "inbox").mkdir()
        (Path(name) / "inbox" / "contacts.csv").write_text(MESSY, encoding="utf-8")
        asyncio.run(main(Path(name)))
