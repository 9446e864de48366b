"""Every benchmark, one after the other; writes the table of the README.

python -m benchmarks
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import check, csv_load, durable, http, imports, nodes, store

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- benchmark:start -->", "<!-- benchmark:end -->"


def rows() -> Iterator[dict[str, Any]]:
    yield from nodes.run()
    for found in csv_load.run():
        yield {
            "case": f"load a CSV file of {found['rows']:,} rows of {found['bytes_a_row']} bytes, a row",
            "ours": f"{found['load_us']:.2f} µs",
            "beside": f"{found['csv_reader_us']:.2f} µs csv.reader alone",
            "ratio": found["ratio"],
        }
    for name, ratio in http.run().items():
        _, connections, *mode = name.split("_")
        kept = f"`{mode[0]}`" if mode else "in memory"
        yield {
            "case": f"HTTP, 5 nodes, {connections} connection{'s' * (connections != '1')}, {kept}: requests a second",
            "ours": "",
            "beside": "bare Starlette + pydantic endpoint",
            "ratio": ratio,
        }
    yield from store.run()
    yield from durable.run()
    yield from imports.run()
    yield from check.run()


def main() -> None:
    lines = ["| what | here | beside | ratio |", "| --- | ---: | --- | ---: |"]
    for row in rows():
        ratio = f"{row['ratio']:.3g}" if "ratio" in row else ""
        print(f"{row['case']:58} {row['ours']:>12}  {row.get('beside', ''):36} {ratio}", flush=True)
        lines.append(f"| {row['case']} | {row['ours']} | {row.get('beside', '')} | {ratio} |")
    lines.append("")
    lines.append(
        f"One run of `make bench` with Python {platform.python_version()} on {platform.machine()}. A ratio is this "
        "project's cost over the other's, so less is better; for HTTP it is requests a second, so more is better."
    )
    text = README.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{START}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
