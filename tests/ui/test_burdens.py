"""What the page costs its visitor: its first paint, long lists, and long runs that are watched."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect
from visits import World, visited

pytest_plugins = ("browsers",)
pytestmark = pytest.mark.anyio

EVENTS = 1006
"""Of an execution of Long."""
IN_SIGHT = 60
"""Rows of a list that are drawn, at the most."""
ROUNDS = 3
"""Times are the best of so many at the most; other programs run on the machine, too."""

SEEN = """
const drawn = new Set()
window.seen = { frames: 0, batches: 0, rows: 0, again: 0, measured: [], tasks: [], useful: null }
const frame = () => {
  seen.frames += 1
  const there = seen.useful === null && document.querySelector('main .card')
  if (there) setTimeout(() => { seen.useful = performance.now() })
  requestAnimationFrame(frame)
}
requestAnimationFrame(frame)
new PerformanceObserver((list) => {
  seen.tasks.push(...list.getEntries().map((one) => one.duration))
}).observe({ type: 'longtask' })
new MutationObserver((changes) => {
  seen.batches += 1
  const added = changes.flatMap((change) => [...change.addedNodes])
  for (const row of added.filter((node) => node.matches?.('.event, .gantt-row, tbody tr'))) {
    seen.rows += 1
    if (drawn.has(row.textContent)) seen.again += 1
    drawn.add(row.textContent)
  }
}).observe(document, { childList: true, subtree: true })
for (const name of ['clientHeight', 'clientWidth', 'scrollHeight', 'offsetHeight', 'offsetTop']) {
  const { prototype } = name in Element.prototype ? Element : HTMLElement
  const { get } = Object.getOwnPropertyDescriptor(prototype, name)
  Object.defineProperty(prototype, name, { get() { seen.measured.push(name); return get.call(this) } })
}
for (const name of ['getBoundingClientRect', 'scrollIntoView']) {
  const work = Element.prototype[name]
  Element.prototype[name] = function (...given) { seen.measured.push(name); return work.apply(this, given) }
}
"""
"""Notes frames, how often and how many rows were drawn (`again`: as they had been), what makes the browser lay the page
out at once, and tasks of 50 ms and more; and when the frame with the first workflow was there.
"""

WEIGHT = "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.decodedBodySize, 0)"
USEFUL = """new Promise((done) => {
    const look = () => seen.useful === null ? requestAnimationFrame(look) : done(seen.useful)
    look()
})"""


async def begin(page: Page) -> None:
    """Note from now on, when what was begun has come to rest."""
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    await page.evaluate("Object.assign(seen, { frames: 0, batches: 0, rows: 0, again: 0, measured: [], tasks: [] })")


async def first_paint(browser: Browser, folder: Path, named: set[str]) -> float:
    """Milliseconds to the first workflow, for a browser that has kept nothing."""
    async with visited(browser, folder) as visit:
        page = visit.page
        await page.add_init_script(SEEN)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(visit.root)))
        await page.goto(f"{visit.root}ui/")
        await expect(page.locator(".card").first).to_be_visible()
        needed = asked[: asked.index("list") + 1]
        assert set(needed) <= {"ui/", "list", *(f"ui/{name}" for name in named)}
        assert len(needed) == len(set(needed))
        assert await page.evaluate(WEIGHT) < 100_000
        useful: float = await page.evaluate(USEFUL)
        return useful


async def test_the_first_paint_is_near(browser: Browser, tmp_path: Path) -> None:
    """What it needs is named in the page itself, so that it is asked for at once, and one answer of the service; it is
    there in less than a second.
    """
    html = resources.files("agentmap_asgi.ui").joinpath("static/index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:href|src)="([\w.]+\.(?:js|css|svg))"', html))
    for _ in range(ROUNDS):
        if (took := await first_paint(browser, tmp_path, named)) < 1_000:
            break
    assert took < 1_000


async def test_a_list_grows_without_weight(browser: Browser, tmp_path: Path) -> None:
    """Of ten thousand executions fifty are asked for and drawn; looking again touches only what has changed."""
    async with visited(browser, tmp_path, config={"max_kept": 20_000}) as visit:
        page = visit.page
        await page.add_init_script(SEEN)
        for at in range(10_000):
            await visit.service.execute_workflow("Hello", {"name": str(at)})
        await page.clock.install()
        await visit.go("executions")
        rows = page.locator("tbody tr")
        await expect(rows).to_have_count(50)
        assert await page.evaluate("document.querySelectorAll('*').length") < 1_200
        await begin(page)
        for new in (0, 0, 1):
            if new:
                await visit.service.execute_workflow("Fails", {"name": "new"})
            async with page.expect_response(re.compile("/executions\\?limit=50")) as answered:
                await page.clock.run_for(4_000)
            await (await answered.value).finished()
        await expect(rows.first).to_contain_text("Fails")
        await expect(rows).to_have_count(50)
        assert await page.evaluate("seen.rows") == 1
        assert await page.evaluate("seen.measured") == []


@pytest.mark.parametrize(("view", "rows"), [("graph", 0), ("timeline", 100), ("events", EVENTS)])
async def test_a_long_run_is_watched(view: str, rows: int, browser: Browser, tmp_path: Path) -> None:
    """A thousand events that come at once are drawn once a frame; each row is made once, only those in sight are, and
    nothing makes the browser lay out the page in between. No task is long.
    """
    for _ in range(ROUNDS):
        world = World()
        async with visited(browser, tmp_path, world) as visit:
            page = visit.page
            await page.add_init_script(SEEN)
            made = await visit.start("Long", mode="async")
            await visit.go(f"execution/{made['execution_id']}/{view}")
            await expect(page.locator(".is-live")).to_be_visible()
            await begin(page)
            world.gate.set()
            await expect(page.locator(".facts .badge").first).to_have_text(re.compile("completed"))
            await expect(page.locator(".outcome")).to_contain_text("250")
            seen: dict[str, Any] = await page.evaluate("seen")
            assert seen["measured"] == []
            assert seen["rows"] <= rows
            assert seen["again"] == 0
            assert seen["batches"] <= 2 * seen["frames"] + 10
            assert await page.locator(".event, .gantt-row").count() <= IN_SIGHT
            if view == "events":
                await expect(page.get_by_text(f"{EVENTS} of {EVENTS}")).to_be_visible()
                await expect(page.locator(".event.completed")).to_be_visible()
        longest = max(seen["tasks"], default=0)
        if longest < 200:
            break
    assert longest < 200
