"""One Chromium for the tests of a file. They use Playwright's async interface: after a synchronous one no async test of
the same process would run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    """The Debian package chromium; a machine of its user's may lack it, CI may not."""
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "chromium is not installed, and CI needs it"
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        await made.close()
