"""What the page costs its visitor: the time to its first useful paint, and the longest time that it keeps the browser
from answering while executions are listed and a long run is watched.

A server process holds 10,000 executions; Chromium, which must be installed, looks at it without a window.

    python -m benchmarks.page
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
COMMAND: Final = (sys.executable, "-m", "benchmarks.page")
KEPT: Final = 10_000
CSV: Final = (
    "GraphName,Node,AgentType,Input_Fields,Output_Field,Edge,Success_Next,Failure_Next,Context\n"
    "Hello,Greet,echo,name,greeting,,,,\n"
    "Count,Gate,gate,go,gone,Tick,,,\n"
    "Count,Tick,tick,n,n,Enough,,,\n"
    'Count,Enough,branching,n,enough,,Done,Tick,"{""when"": ""n >= 250""}"\n'
    "Count,Done,echo,n,done,,,,\n"
)
WATCH: Final = """
window.seen = { tasks: [], frames: 0, gap: 0, useful: null }
new PerformanceObserver((list) => {
  seen.tasks.push(...list.getEntries().map((one) => one.duration))
}).observe({ type: 'longtask', buffered: true })
let before = null
const frame = (at) => {
  seen.frames += 1
  if (before !== null) seen.gap = Math.max(seen.gap, at - before)
  before = at
  const there = seen.useful === null && document.querySelector('main .card')
  if (there) setTimeout(() => { seen.useful = performance.now() })
  requestAnimationFrame(frame)
}
requestAnimationFrame(frame)
"""
"""Notes tasks of 50 ms and more, the longest time between two frames, and when the first frame with data was drawn."""
AGAIN: Final = "Object.assign(seen, { tasks: [], frames: 0, gap: 0 })"
PAUSE: Final = "new Promise((done) => setTimeout(done, 300))"


async def serve(folder: str) -> None:
    """A server that holds many executions already."""
    import uvicorn

    from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext, Call

    async def gate(call: Call) -> bool:
        while not Path(folder, f"{call.execution_id}.go").exists():  # noqa: ASYNC110, ASYNC240  # another process says it
            await asyncio.sleep(0.01)
        return True

    async def tick(call: Call) -> int:
        await asyncio.sleep(float(call.state.get("pause") or 0))
        return int(call.inputs.get("n") or 0) + 1

    path = Path(folder, "flows.csv")
    path.write_text(CSV)  # noqa: ASYNC240
    config = AgentMapConfig(storage_url="memory://", max_kept=2 * KEPT, shutdown_grace=0.1)
    app = AgentMapApp(path, config=config, context=AgentMapContext(agents={"gate": gate, "tick": tick}))
    for at in range(KEPT):
        await app.service.execute_workflow("Hello", {"name": str(at)})
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await task


def until(page: Any, condition: str) -> None:
    """Look at each frame; the policy of the page forbids Playwright's own way."""
    page.evaluate(
        f"new Promise((done) => {{ (function look() {{ {condition} ? done() : requestAnimationFrame(look) }})() }})"
    )


def painted(browser: Any, base: str, rounds: int = 5) -> dict[str, dict[str, float]]:
    """Milliseconds to the first contentful paint and to the first with data: cold (nothing cached), and again."""
    found: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        context = browser.new_context()
        context.add_init_script(WATCH)
        page = context.new_page()
        for times in found.values():
            page.goto("about:blank")
            page.goto(f"{base}/ui/")
            until(page, "seen.useful")
            first = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            times.append((page.evaluate(first), page.evaluate("seen.useful")))
        context.close()
    return {
        how: {"contentful_ms": min(a for a, _ in times), "useful_ms": min(b for _, b in times)}
        for how, times in found.items()
    }


@contextmanager
def measured(browser: Any, page: Any) -> Iterator[dict[str, float]]:
    """The longest task and the longest time between two frames meanwhile, in milliseconds; and the most processor time
    that a task took, which does not mind what else the machine does.
    """
    found: dict[str, float] = {}
    page.evaluate(AGAIN)
    browser.start_tracing(page=page, categories=["toplevel"])
    yield found
    found["longest_task_ms"] = page.evaluate("Math.max(0, ...seen.tasks)")
    found["longest_frame_ms"] = page.evaluate("seen.gap")
    events = json.loads(browser.stop_tracing())["traceEvents"]
    threads = {(e["pid"], e["tid"]) for e in events if e.get("args", {}).get("name") == "CrRendererMain"}
    took = [e["tdur"] for e in events if e.get("ph") == "X" and "tdur" in e and (e["pid"], e["tid"]) in threads]
    found["most_processor_ms"] = max(took, default=0) / 1_000


def opened(browser: Any, base: str, view: str, row: str) -> dict[str, float]:
    """A view with much in it, by a link."""
    page = browser.new_page()
    page.add_init_script(WATCH)
    page.goto(f"{base}/ui/")
    page.wait_for_selector(".card")
    with measured(browser, page) as found:
        page.evaluate(f"location.hash = '#/{view}'")
        page.wait_for_selector(row)
        page.evaluate(PAUSE)
    page.close()
    return found


def listed(browser: Any, base: str) -> dict[str, float]:
    """The list of 10,000 executions: scrolled, paged through and filtered."""
    page = browser.new_page()
    page.add_init_script(WATCH)
    page.goto(f"{base}/ui/#/executions")
    page.wait_for_selector("tbody tr")
    with measured(browser, page) as found:
        for _ in range(5):
            for _ in range(5):
                page.mouse.wheel(0, 600)
                page.evaluate("new Promise(requestAnimationFrame)")
            page.wait_for_selector("tbody tr")
            page.evaluate("window.marked = document.querySelector('tbody tr')")
            page.get_by_role("link", name="Older").click()
            until(page, "!window.marked.isConnected")
        page.get_by_label("State").select_option("failed")
        page.wait_for_selector("p.empty:not([hidden])")
    page.close()
    return found


def watched(browser: Any, base: str, folder: str, view: str, pause: float, name: str) -> dict[str, float]:
    """A run of 1,006 events whose view is open, which come at once or one after the other."""
    page = browser.new_page()
    page.add_init_script(WATCH)
    body = {"graph_name": "Count", "initial_state": {"pause": pause}, "mode": "async", "execution_id": name}
    page.request.post(f"{base}/execute", data=body)
    page.goto(f"{base}/ui/#/execution/{name}/{view}")
    page.wait_for_selector(".is-live")
    page.evaluate(PAUSE)
    with measured(browser, page) as found:
        Path(folder, f"{name}.go").touch()
        page.wait_for_selector(".facts .badge.completed", timeout=60_000)
        page.evaluate(PAUSE)
    page.close()
    return found


def run(rounds: int = 3) -> list[dict[str, Any]]:
    """The best of some rounds, in milliseconds."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is needed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = subprocess.Popen([*COMMAND, "serve", folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            assert server.stdout is not None
            base = f"http://127.0.0.1:{int(server.stdout.readline())}"
            rows: list[dict[str, Any]] = [
                {"case": f"first paint, {how}", **times} for how, times in painted(browser, base).items()
            ]

            def watch(view: str, pause: float, names: Iterator[int] = count()) -> dict[str, float]:  # noqa: B008
                return watched(browser, base, folder, view, pause, f"long{next(names)}")

            many = f"{KEPT:,} executions"
            tried = [
                (f"{many}, listed", partial(opened, browser, base, "executions", "tbody tr")),
                (f"{many}, scrolled, paged and filtered", partial(listed, browser, base)),
                *(
                    (f"1,006 events {how}, on the view {view}", partial(watch, view, pause))
                    for view in ("graph", "timeline", "events", "state")
                    for pause, how in ((0.0, "at once"), (0.004, "one by one"))
                ),
                (
                    "1,006 events of a run that has ended",
                    partial(opened, browser, base, "execution/long0/events", ".event"),
                ),
            ]
            for case, measure in tried:
                held = [measure() for _ in range(rounds)]
                rows.append({"case": case, **{key: min(one[key] for one in held) for key in held[0]}})
        finally:
            browser.close()
            server.terminate()
            server.wait()
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        os.chdir(sys.argv[2])
        asyncio.run(serve(sys.argv[2]))
    else:
        for row in run():
            case = row.pop("case")
            print(
                f"{case:50} " + "  ".join(f"{key.replace('_', ' ')} {value:7.1f}" for key, value in row.items()),
                flush=True,
            )
