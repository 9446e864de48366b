"""Runs the tests with pytest, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        # Of the plugins that may be installed, these tests need one.
        environment = {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{name}/items.db",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        options = ["-q", "-p", "anyio", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(HERE)]
        command = [sys.executable, "-W", "error", "-B", "-m", "pytest", *options, str(HERE / "test_app.py")]
        done = subprocess.run(command, env=environment, cwd=name, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "4 passed" in done.stdout


if __name__ == "__main__":
    main()
