"""What importing the package adds to a host that has FastAPI loaded already.

python -m benchmarks.imports
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

SCRIPT = """
import time
import fastapi
started = time.perf_counter()
import agentmap_asgi
agentmap_asgi.AgentMapApp, agentmap_asgi.include_agentmap_routes
elapsed = time.perf_counter() - started
import sys
assert "networkx" not in sys.modules
print(elapsed)
"""


def run(rounds: int = 15) -> list[dict[str, Any]]:
    """The best of several fresh processes, in milliseconds."""
    # As installed: compiled files are kept, whatever the shell says.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    found = [float(subprocess.check_output([sys.executable, "-c", SCRIPT], env=environ)) for _ in range(rounds)]
    return [{"case": "import over a FastAPI host", "ours": f"{min(found) * 1e3:.0f} ms", "beside": "budget 60 ms"}]


if __name__ == "__main__":
    print(run()[0]["ours"])
