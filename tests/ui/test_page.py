"""What people see and do on the page, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from anyio import to_thread
from playwright.async_api import Browser, Route, expect
from visits import NASTY, WAYS, World, visited

pytest_plugins = ("browsers",)
pytestmark = pytest.mark.anyio


BARS_IN_SIGHT = """() => [...document.querySelectorAll('.bar')].every((bar) =>
    bar.getBoundingClientRect().right <= bar.parentNode.getBoundingClientRect().right + 0.5)"""


@pytest.mark.parametrize("way", WAYS)
async def test_a_workflow_is_found_run_and_watched(way: str, browser: Browser, tmp_path: Path) -> None:
    """From the list to the end of a run, wherever the page is mounted; all requests stay below the mount."""
    world = World()
    async with visited(browser, tmp_path, world, way) as visit:
        page = visit.page
        await page.goto(f"{visit.root}ui")
        await expect(page).to_have_url(f"{visit.root}ui/")
        await page.get_by_role("link", name="Slow", exact=True).click()
        await expect(page.get_by_role("button", name=re.compile("^Gate"))).to_be_visible()
        await page.get_by_role("link", name="Run…").click()
        await page.get_by_label("name").fill("Ada")
        await page.get_by_role("button", name="Run", exact=True).click()

        await expect(page.locator("[data-node=Gate]")).to_have_attribute("data-state", "running")
        await expect(page.locator("[data-node=After]")).to_have_attribute("data-state", "pending")
        await expect(page.locator(".facts .badge")).to_have_text(re.compile("running"))
        world.gate.set()
        await expect(page.locator("[data-node=After]")).to_have_attribute("data-state", "completed")
        await expect(page.locator(".facts .badge").first).to_have_text(re.compile("completed"))
        assert await page.locator(".edge.taken").count() == 4

        await page.locator("[data-node=Gate]").click()
        details = page.get_by_role("complementary", name="Node")
        await expect(details).to_contain_text("through")
        await page.get_by_role("link", name="Timeline").click()
        await expect(page.get_by_role("button", name=re.compile("^Gate, completed, took"))).to_be_visible()
        assert await page.locator(".gantt-row").count() == 4
        assert await page.evaluate(BARS_IN_SIGHT)
        await page.get_by_role("link", name="Events").click()
        await expect(page.locator(".event")).to_have_count(10)
        await page.get_by_role("link", name="State").click()
        await expect(page.locator(".state")).to_contain_text('"waited": "through"')

        # The address leads to the same view again.
        await page.goto(page.url.replace("/state", "/timeline/Gate%231"))
        await page.reload()
        await expect(details).to_contain_text("through")


async def test_a_stream_that_is_cut_off_goes_on(browser: Browser, tmp_path: Path) -> None:
    """The server ends streams after a moment; every event is shown, and each once."""
    world = World()
    async with visited(browser, tmp_path, world, config={"max_stream_seconds": 0.0}) as visit:
        made = await visit.start("Slow", {"name": "Ada"}, mode="async")
        await visit.go(f"execution/{made['execution_id']}/events")
        await expect(visit.page.locator(".event.node_started")).to_have_count(3)
        world.gate.set()
        await expect(visit.page.locator(".event.completed")).to_have_count(1)
        numbers = await visit.page.locator(".event .number").all_inner_texts()
        assert numbers == [str(number) for number in range(1, 11)]


async def test_a_connection_that_says_nothing_is_given_up(browser: Browser, tmp_path: Path) -> None:
    """A network that is gone ends no stream; its silence does, and the page asks for the events again."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        await page.clock.install()
        made = await visit.start("Slow", {"name": "Ada"}, mode="async")
        await visit.go(f"execution/{made['execution_id']}")
        await expect(page.locator(".is-live")).to_be_visible()
        async with page.expect_request(re.compile("/stream")) as asked:
            await page.clock.fast_forward(46_000)
            await expect(page.locator(".is-reconnecting")).to_be_visible()
            await page.clock.fast_forward(2_000)
        assert "last-event-id" in (await asked.value).headers


LOOK_AWAY = """(hidden) => {
    Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
    document.dispatchEvent(new Event('visibilitychange'))
}"""


async def test_a_hidden_tab_holds_no_connection(browser: Browser, tmp_path: Path) -> None:
    """Its stream is there for another tab; shown again, it goes on after the last event that it knows. What ends
    meanwhile is told by its title.
    """
    world = World()
    async with visited(browser, tmp_path, world, config={"max_streams": 1}) as visit:
        visit.expected.add(503)  # until the server knows that the other tab has gone
        page = visit.page
        made = await visit.start("Slow", {"name": "Ada"}, mode="async")
        await visit.go(f"execution/{made['execution_id']}/events")
        await expect(page.locator(".is-live")).to_be_visible()
        await expect(page.locator(".event.node_started")).to_have_count(3)
        await page.evaluate(LOOK_AWAY, True)
        await expect(page.locator(".is-hidden")).to_have_count(1)
        other = await page.context.new_page()
        await other.goto(page.url)
        await expect(other.locator(".is-live")).to_be_visible()
        await other.close()
        async with page.expect_request(re.compile("/stream")) as asked:
            await page.evaluate(LOOK_AWAY, False)
        assert int((await asked.value).headers["last-event-id"]) == await page.locator(".event").count()
        await expect(page.locator(".is-live")).to_be_visible()

        await page.clock.install()
        await page.evaluate(LOOK_AWAY, True)
        await expect(page.locator(".is-hidden")).to_have_count(1)
        world.gate.set()
        await visit.service.execute_workflow("Hello", {"name": "Ada"})  # the loop has gone on
        await page.clock.run_for(60_000)
        await expect(page).to_have_title(re.compile("Slow completed"))
        numbers = await page.locator(".event .number").all_inner_texts()
        assert numbers == [str(number) for number in range(1, 11)]


async def test_what_came_of_it_is_seen_first(browser: Browser, tmp_path: Path) -> None:
    """A run that has ended opens with what its nodes wrote, or with what failed and what can be done about it."""
    world = World()
    async with visited(browser, tmp_path, world) as visit:
        page = visit.page
        made = await visit.start("Hello", {"name": "Ada"})
        await visit.go(f"execution/{made['execution_id']}")
        result = page.get_by_role("region", name="Result")
        await expect(result).to_be_in_viewport()
        assert await result.locator("dt, dd").all_inner_texts() == ["farewell", "Bye Ada!", "greeting", "Hello Ada!"]
        await page.get_by_role("button", name="Run again…").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_label("From")).to_have_value("start")
        await dialog.get_by_role("button", name="What would run?").click()
        await expect(dialog).to_contain_text("keeps 0 results")

        made = await visit.start("Fails", {"name": "Ada"})
        await visit.go(f"execution/{made['execution_id']}")
        error = page.get_by_role("region", name="Error")
        await expect(error).to_be_in_viewport()
        await expect(error).to_contain_text("Second failed")
        await expect(error).to_contain_text("When the cause is gone, run it again from there")
        world.works = True
        await error.get_by_role("button", name="Run again from Second…").click()
        await expect(dialog.get_by_label("From")).to_have_value("Second#1")
        await dialog.get_by_role("button", name="Run again", exact=True).click()
        await expect(result).to_contain_text("done")


async def test_a_run_is_shown_as_it_was_read(browser: Browser, tmp_path: Path) -> None:
    """What a node was given is told by the version that the execution began with, not by the one served now; and what
    has changed since.
    """
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        made = await visit.start("Hello", {"name": "Ada"})
        file = tmp_path / "flows.csv"
        old = "Hello,Part,echo,name,farewell,Bye {name}!"
        await to_thread.run_sync(
            lambda: file.write_text(file.read_text().replace(old, "Hello,Part,echo,greeting,farewell,Bye!"))
        )
        await visit.service.reload()
        await visit.go(f"execution/{made['execution_id']}")
        await page.locator("[data-node=Part]").click()
        details = page.get_by_role("complementary", name="Node")
        await expect(details.locator("dt").first).to_have_text("name")
        await expect(details.locator("dd").first).to_have_text("Ada")
        await visit.go("workflow/flows%3A%3AHello/versions")
        await expect(page.get_by_text("served now")).to_have_count(1)
        await page.get_by_role("button", name="Compare with now").click()
        await expect(page.get_by_role("heading", name=re.compile("^From .* to now"))).to_be_visible()
        await expect(page.locator("pre.value")).to_contain_text("greeting")


async def test_what_happened_last_is_shown(browser: Browser, tmp_path: Path) -> None:
    """An answer that says how the execution was before its end comes late: the page asks again."""
    world = World()
    async with visited(browser, tmp_path, world) as visit:
        page = visit.page
        made = await visit.start("Slow", {"name": "Ada"}, mode="async")
        address = f"{visit.root}executions/{made['execution_id']}"
        await visit.go(f"execution/{made['execution_id']}/events")
        await expect(page.locator(".event.node_started")).to_have_count(3)
        old = await page.request.get(address)
        held: list[Route] = []

        async def hold(route: Route) -> None:
            if held:
                await route.fallback()
            else:
                held.append(route)

        await page.route(address, hold)
        world.gate.set()
        await expect(page.locator(".event.completed")).to_have_count(1)
        await expect(page.locator(".is-ended")).to_have_count(1)
        await held[0].fulfill(response=old)
        await expect(page.locator(".facts .badge").first).to_have_text(re.compile("completed"))


async def test_addresses_lead_nowhere_else(browser: Browser, tmp_path: Path) -> None:
    """A link whose names are dots or words of the language asks for nothing, in the mount or beside it."""
    async with visited(browser, tmp_path, way="mounted") as visit:
        page = visit.page
        for link in ("workflow/..%2F..%2Fopenapi.json", "workflow/..", "execution/..", "execution/.", "constructor"):
            await visit.go(link)
            await expect(page.locator("main .empty h1")).to_be_visible()
        await page.goto(f"{visit.root}docs#/operation/%E0")
        await expect(page.get_by_role("heading", name="Run a workflow")).to_be_visible()


async def test_filters_are_chosen_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    """The list is shown anew with each choice, and the choice keeps the focus."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        await visit.go("executions")
        await page.get_by_label("State").focus()
        for state in ("queued", "running", "suspended"):
            await page.keyboard.press("ArrowDown")
            await expect(page).to_have_url(re.compile(f"status={state}"))
            await expect(page.get_by_label("State")).to_be_focused()


async def test_what_a_node_tells_is_heard(browser: Browser, tmp_path: Path) -> None:
    """Progress, log lines and the pieces of a text, while the node runs and somebody looks."""
    world = World()
    async with visited(browser, tmp_path, world) as visit:
        page = visit.page
        await visit.start("Story", {"name": "Ada"}, execution_id="heard", mode="async")
        await visit.go("execution/heard")
        reached = page.locator("[data-node=Tell]")
        await expect(reached).to_have_attribute("data-state", "running")
        await expect(page.locator(".is-live")).to_be_visible()
        world.spoken.set()
        told = page.locator(".told")
        await expect(told).to_contain_text("Once upon a time")
        await expect(told).to_contain_text("Page one is read")
        await expect(told.get_by_role("progressbar", name="Reading")).to_have_attribute("value", "0.4")
        world.gate.set()
        await expect(reached).to_have_attribute("data-state", "completed")


async def test_questions_are_answered(browser: Browser, tmp_path: Path) -> None:
    """A form with its errors at the fields, an approval, a choice, a text, and a text to edit."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        made = await visit.start("Leave")
        await visit.go("waiting")
        await page.get_by_label("day required").fill("May 4")
        await page.get_by_label("days").fill("1")
        await page.get_by_label("kind").select_option("paid")
        await page.get_by_role("button", name="Send answer").click()
        await page.get_by_role("link", name="See how it goes on").click()

        wait = page.locator("form.wait")
        await expect(wait).to_contain_text("1 days?")
        await wait.get_by_label("Comment").fill("Fine.")
        await wait.get_by_role("button", name="Approve").click()
        await wait.get_by_label("green").check()
        await wait.get_by_role("button", name="Send answer").click()
        await expect(wait).to_contain_text("A note?")
        await wait.get_by_label("Answer").fill("Bye all")
        await wait.get_by_role("button", name="Send answer").click()
        await expect(wait.get_by_label("Edit")).to_have_value("Bye all")
        await wait.get_by_label("Edit").fill("Bye, all!")
        await expect(page.locator("#waiting-count")).to_have_text("1")
        await wait.get_by_role("button", name="Send answer").click()
        await expect(page.locator("#waiting-count")).to_be_hidden(timeout=10_000)
        await expect(page.locator(".facts .badge").first).to_have_text(re.compile("completed"))
        answer = await page.request.get(f"{visit.root}executions/{made['execution_id']}")
        found = (await answer.json())["result"]
        assert found["request"] == {"day": "May 4", "days": 1, "kind": "paid"}
        assert (found["approval"]["comment"], found["colour"], found["told"]) == ("Fine.", "green", "Bye, all!")


async def test_a_refused_answer_says_where(browser: Browser, tmp_path: Path) -> None:
    """What the server finds wrong stands at the field, and the form keeps what was typed."""
    async with visited(browser, tmp_path) as visit:
        visit.expected.add(422)
        page = visit.page
        made = await visit.start("Leave")
        await visit.go(f"execution/{made['execution_id']}")
        await page.get_by_label("day required").fill("May 4")
        await page.get_by_label("days").fill("2")
        # Another tab makes the form's own check useless.
        await page.get_by_label("days").evaluate("box => { box.type = 'text'; box.value = 'two' }")
        await page.get_by_role("button", name="Send answer").click()
        await expect(page.get_by_label("days")).to_have_attribute("aria-invalid", "true")
        await expect(page.get_by_label("day required")).to_have_value("May 4")


async def test_a_failed_run_is_run_again(browser: Browser, tmp_path: Path) -> None:
    """The page shows what failed, says what would run, and follows the new execution to its end."""
    world = World()
    async with visited(browser, tmp_path, world) as visit:
        page = visit.page
        made = await visit.start("Fails", {"name": "Ada"})
        await visit.go(f"execution/{made['execution_id']}")
        await expect(page.get_by_role("heading", name="Second failed")).to_be_visible()
        details = page.get_by_role("complementary", name="Node")
        await expect(details).to_contain_text("The line is busy")
        await expect(details).to_contain_text("Attempts (2)")
        await expect(page.locator("[data-node=Third]")).to_have_attribute("data-state", "skipped")
        world.works = True
        await page.get_by_role("button", name="Run again…").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("button", name="What would run?").click()
        await expect(dialog).to_contain_text("keeps 1 results")
        await dialog.get_by_role("button", name="Run again", exact=True).click()
        await expect(page.locator("[data-node=Third]")).to_have_attribute("data-state", "completed")
        await page.get_by_role("link", name="again after an earlier one").click()
        await expect(page).to_have_url(re.compile(made["execution_id"]))


async def test_a_run_is_cancelled_and_deleted(browser: Browser, tmp_path: Path) -> None:
    """Both ask first."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        made = await visit.start("Slow", mode="async")
        await visit.go(f"execution/{made['execution_id']}")
        await page.get_by_role("button", name="Cancel…").click()
        await page.get_by_role("dialog").get_by_role("button", name="Back").click()
        await page.get_by_role("button", name="Cancel…").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel it").click()
        await expect(page.locator(".facts .badge").first).to_have_text(re.compile("cancelled"))
        await expect(page.locator("[data-node=Gate]")).to_have_attribute("data-state", "cut")
        await expect(page.get_by_role("heading", name="It was cancelled")).to_be_visible()
        await page.get_by_role("button", name="Delete…").click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
        await expect(page.get_by_text("Nothing has been run yet")).to_be_visible()


async def test_executions_are_filtered_and_paged(browser: Browser, tmp_path: Path) -> None:
    """Fifty are asked for and shown; filters and pages are in the address."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        for at in range(120):
            await visit.service.execute_workflow("Hello", {"name": str(at)})
        await visit.start("Fails", tags=["red"])
        await visit.go("executions")
        rows = page.locator("tbody tr")
        await expect(rows).to_have_count(50)
        await expect(rows.first).to_contain_text("Fails")
        await page.get_by_role("link", name="Older").click()
        await expect(rows.first).to_contain_text("Hello")
        await expect(rows).to_have_count(50)
        await page.get_by_role("link", name="Newest").click()
        await page.get_by_label("State").select_option("failed")
        await expect(rows).to_have_count(1)
        await expect(page).to_have_url(re.compile("status=failed"))
        await page.get_by_label("Workflow").select_option(label="Hello")
        await expect(page.get_by_text("No execution fits these filters")).to_be_visible()
        await page.get_by_role("link", name="Clear").click()
        await rows.first.get_by_role("link", name="red").click()
        await expect(rows).to_have_count(1)
        await page.reload()
        await expect(page.get_by_label("Tag")).to_have_value("red")


async def test_a_long_run_is_shown_in_parts(browser: Browser, tmp_path: Path) -> None:
    """A thousand events: only the rows in sight are in the document, and the last are reached by scrolling."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        made = await visit.start("Count")
        await visit.go(f"execution/{made['execution_id']}/events")
        await expect(page.get_by_text("1004 of 1004")).to_be_visible()
        assert await page.locator(".event").count() < 60
        await page.locator(".virtual").evaluate("list => list.scrollTo(0, list.scrollHeight)")
        await expect(page.locator(".event.completed")).to_be_visible()
        assert await page.locator(".event").count() < 60
        await page.get_by_label("Find events").fill("Done")
        await expect(page.get_by_text("2 of 1004")).to_be_visible()
        await page.get_by_role("link", name="Timeline").click()
        await expect(page.get_by_role("button", name=re.compile("^Tick, completed"))).to_be_visible()
        assert await page.locator(".gantt-row").count() < 60


async def test_what_is_wrong_stands_at_its_cell(browser: Browser, tmp_path: Path) -> None:
    """Rows of the file with their findings; a broken workflow says why it cannot be started."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        await visit.go("workflows")
        card = page.locator(".card.broken")
        await expect(card).to_contain_text("There is no agent type 'ecko'")
        await card.get_by_role("link").click()
        await page.get_by_role("link", name="Rows").click()
        cell = page.locator("td.flawed", has_text="ecko")
        await expect(cell).to_contain_text("There is no agent type 'ecko'")
        await expect(page.locator("td.flawed", has_text="Nowhere")).to_have_count(1)
        assert await page.locator("tbody tr").count() == 1
        await page.get_by_role("link", name="Run", exact=True).click()
        await expect(page.get_by_role("heading", name="It cannot be started")).to_be_visible()


async def test_texts_are_only_texts(browser: Browser, tmp_path: Path) -> None:
    """Names, prompts and values that look like markup are shown as they are, in every view."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        made = await visit.start("Nasty", {"text": NASTY}, tags=[NASTY])
        views = ["workflows", "executions", "workflow/flows%3A%3ANasty", "workflow/flows%3A%3ANasty/source"]
        views += [f"execution/{made['execution_id']}/{tab}" for tab in ("graph", "timeline", "events", "state")]
        for view in views:
            await visit.go(view)
            assert await page.locator("main img, main script, main iframe").count() == 0, view
        await page.goto(f"{visit.root}ui/#/workflow/flows%3A%3ANasty")
        await page.locator("[data-node]").click()
        await expect(page.get_by_role("complementary").get_by_role("heading")).to_have_text(NASTY)
        await expect(page.get_by_role("complementary")).to_contain_text("<script>alert(1)</script>")


async def test_errors_say_what_to_do(browser: Browser, tmp_path: Path) -> None:
    """Unknown pages, workflows and executions; nothing to wait for or to list; a server that is gone."""
    async with visited(browser, tmp_path) as visit:
        visit.expected |= {404, "ERR_INTERNET_DISCONNECTED"}
        page = visit.page
        await visit.go("nowhere")
        await expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
        await visit.go("execution/none")
        await expect(page.get_by_role("alert")).to_contain_text("It is not there, or not for you")
        await expect(page.get_by_role("button", name="Try again")).to_be_visible()
        await visit.go("waiting")
        await expect(page.get_by_text("Nothing waits for you")).to_be_visible()
        await visit.go("executions")
        await expect(page.get_by_text("Nothing has been run yet. Choose a workflow and run it.")).to_be_visible()

        await page.context.set_offline(True)
        await visit.go("workflow/flows%3A%3AHello")
        await expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
        await page.context.set_offline(False)
        await page.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("heading", name="Hello")).to_be_visible()

        await to_thread.run_sync((tmp_path / "flows.csv").write_text, "GraphName,Node\n")
        await visit.service.reload()
        await visit.go("workflows")
        await expect(page.get_by_role("heading", name="No workflows yet")).to_be_visible()
        await expect(page.get_by_text("Put a CSV file with the columns GraphName, Node and Edge")).to_be_visible()


async def test_the_keyboard_reaches_everything(browser: Browser, tmp_path: Path) -> None:
    """One stop for the drawing, arrows from node to node, Enter to look; the first stop leads to the content."""
    async with visited(browser, tmp_path) as visit:
        page = visit.page
        await visit.go("workflow/flows%3A%3AHello")
        await expect(page.locator("[data-node=Greet]")).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="To the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        for _ in range(20):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.dataset.node") == "Greet":
                break
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("[data-node=Part]")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("complementary").get_by_role("heading")).to_have_text("Part")
