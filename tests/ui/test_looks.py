"""How the page looks: for everybody, on small screens, in the dark, and without cost."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from visits import Visit, flaws, visited

pytest_plugins = ("browsers",)
VIEWS = (
    *("workflows", "executions", "waiting", "workflow/flows%3A%3ALeave", "workflow/flows%3A%3ALeave/run"),
    *("workflow/flows%3A%3ABad/source", "workflow/flows%3A%3ABad", "workflow/flows%3A%3AHello/versions", "nowhere"),
    *("execution/{done}", "execution/{failed}", "execution/{done}/timeline/Part%231", "execution/{done}/events"),
    *("execution/{done}/state", "execution/{waits}"),
)
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


async def prepared(visit: Visit) -> list[str]:
    """All views, with executions in them."""
    visit.expected.add(404)
    started = {"done": "Hello", "failed": "Fails", "waits": "Leave"}
    ids = {
        name: (await visit.start(graph, {"name": "Ada"}, tags=["look"]))["execution_id"]
        for name, graph in started.items()
    }
    return [view.format(**ids) for view in VIEWS]


@pytest.mark.anyio
async def test_every_view_is_accessible(browser: Browser, tmp_path: Path) -> None:
    """axe-core finds nothing."""
    async with visited(browser, tmp_path) as visit:
        for view in await prepared(visit):
            await visit.go(view)
            assert await flaws(visit.page) == [], view


@pytest.mark.anyio
async def test_every_view_fits_a_phone_in_the_dark(browser: Browser, tmp_path: Path) -> None:
    """Wide things scroll in their own frames, the page does not; colours have contrast enough in the dark, too."""
    async with visited(browser, tmp_path, color_scheme="dark", **PHONE) as visit:
        for view in await prepared(visit):
            await visit.go(view)
            width = await visit.page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, view
            assert await flaws(visit.page, "color-contrast") == [], view


@pytest.mark.anyio
async def test_colours_follow_the_system_or_the_visitor(browser: Browser, tmp_path: Path) -> None:
    """Dark where the system is; a button changes it, and the choice is kept."""
    async with visited(browser, tmp_path, color_scheme="dark") as visit:
        page = visit.page
        await visit.go("workflows")
        paper = "getComputedStyle(document.body).backgroundColor"
        assert await page.evaluate(paper) == "rgb(20, 24, 31)"
        await page.get_by_role("button", name="Colours: system").click()
        assert await page.evaluate(paper) == "rgb(255, 255, 255)"
        await page.reload()
        await expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
        assert await page.evaluate(paper) == "rgb(255, 255, 255)"


FITS = """() => [...document.querySelectorAll('[data-node]')].flatMap((node) => {
    const box = node.querySelector('rect').getBoundingClientRect()
    return [...node.querySelectorAll('text')].filter((text) => {
        const { left, right, top, bottom } = text.getBoundingClientRect()
        return left < box.left || right > box.right || top < box.top || bottom > box.bottom
    }).map((text) => text.textContent)
})"""


@pytest.mark.anyio
async def test_names_fit_into_their_boxes(browser: Browser, tmp_path: Path) -> None:
    """The widths that the server reckons with are enough for the fonts of a browser, with the sign of a state too."""
    async with visited(browser, tmp_path) as visit:
        fails = (await visit.start("Fails"))["execution_id"]
        for view in (f"execution/{fails}", "workflow/flows%3A%3ANasty", "workflow/flows%3A%3ALeave"):
            await visit.go(view)
            await expect(visit.page.locator("[data-node]").first).to_be_visible()
            assert await visit.page.evaluate(FITS) == []


STATIC = resources.files("agentmap_asgi.ui").joinpath("static")
FILES = {path.name: path.read_text(encoding="utf-8") for path in STATIC.iterdir()}


def test_the_files_are_small() -> None:
    """All together less than 150 kB, as they are."""
    assert sum(len(text.encode()) for text in FILES.values()) < 150_000


def test_nothing_becomes_markup() -> None:
    """No file uses what turns text into markup or code, styles in attributes, or another origin."""
    forbidden: tuple[str, ...] = (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
    )
    forbidden += (' style="', "https://", "javascript:", 'onclick="', "<script>")
    found = [(name, word) for name, text in FILES.items() for word in forbidden if word in text]
    assert found == []
    links = {name: text.replace("http://www.w3.org/2000/svg", "") for name, text in FILES.items()}
    assert [name for name, text in links.items() if "http://" in text] == []
