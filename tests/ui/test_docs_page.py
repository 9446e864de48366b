"""The operations as people read and try them, at /docs."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from visits import flaws, visited

from agentmap_asgi.http.operations import OPERATIONS

pytest_plugins = ("browsers",)
pytestmark = pytest.mark.anyio

WORKFLOWS = 9
"""Those of the flows that can be started."""


@pytest.mark.parametrize("way", ["alone", "stripped"])
async def test_an_operation_is_read_and_tried(way: str, browser: Browser, tmp_path: Path) -> None:
    """Each workflow has one with its fields; it is filled in, sent, and answered; models are linked."""
    async with visited(browser, tmp_path, way=way) as visit:
        page = visit.page
        await page.goto(f"{visit.root}docs")
        index = page.get_by_role("navigation", name="Operations")
        await index.get_by_role("link", name="Run Hello").click()
        await expect(page.get_by_role("heading", name="Run Hello")).to_be_visible()
        form = page.get_by_role("form", name="Try it")
        await expect(form.get_by_label("Body")).to_have_value('{\n  "inputs": {\n    "name": "text"\n  }\n}')
        await form.get_by_label("Body").fill('{"inputs": {"name": "Ada"}}')
        await expect(form).to_contain_text(f"curl -X POST '{visit.root}execute/Hello'")
        await form.get_by_role("button", name="Send").click()
        await expect(form).to_contain_text('"greeting": "Hello Ada!"')
        await page.get_by_role("link", name="Inputs_Hello").click()
        await expect(page.get_by_role("rowheader", name="name required")).to_be_visible()

        visit.expected.add(422)
        await page.goto(f"{visit.root}docs#/operation/executions")
        await form.get_by_label("limit").fill("-1")
        await form.get_by_role("button", name="Send").click()
        await expect(form).to_contain_text("limit is a whole number from 1 to 200")
        await page.goto(f"{visit.root}docs#/operation/schema_by_id")
        await form.get_by_label("graph_id").fill("flows::Hello")
        await form.get_by_role("button", name="Send").click()
        await expect(form).to_contain_text('"title": "Hello"')


async def test_every_operation_is_shown(browser: Browser, tmp_path: Path) -> None:
    """All of the table have a place in the index; pages are accessible, and no wider than a phone."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        await page.goto(f"{visit.root}docs")
        index = page.get_by_role("navigation", name="Operations")
        served = sum(row.needs in ("", "docs") for row in OPERATIONS)
        await expect(index.locator("a[href^='#/operation/']")).to_have_count(served + WORKFLOWS)
        for place in ("", "#/operation/execute", "#/operation/validate", "#/model/Execution", "#/model/none"):
            await page.goto(f"{visit.root}docs{place}")
            await expect(page.locator("h1")).to_be_visible()
            await page.set_viewport_size({"width": 1280, "height": 800})
            assert await flaws(page) == [], place
            await page.set_viewport_size({"width": 360, "height": 740})
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360
