// One execution, live: its drawing, its timeline, its nodes, its events, its state; what it asks, and what can be done.

import { call, executionPath, follow, get, post, text } from "./api.js"
import { announce, badge, fill, fresh, h, json, seconds, short, shown, tabs, time } from "./dom.js"
import { graph } from "./graph.js"
import { empty, inputsOf, stateOf, take, tell } from "./model.js"
import { eventLog, timeline } from "./timeline.js"
import { waitForm } from "./waits.js"
import { executionLink, workflowLink } from "./workflows.js"

const TABS = { "": "Graph", timeline: "Timeline", events: "Events", state: "State" }
const MOST_VISITS = 200 // so many can be chosen from
const MOST_FIELDS = 4
const FINISHED = new Set(["completed", "failed", "cancelled", "interrupted"])

export async function executionPage({ main, signal, parts: [id, first = "", chosen], replace }) {
  let document_ = await get(executionPath(id), { signal })
  if (!("nodes_executed" in document_)) return assigneePage({ main, id, document_ })
  const model = empty()
  let tab = Object.hasOwn(TABS, first) ? first : ""
  let selected = chosen || null
  document.title = `${document_.graph_name} ${document_.status} · Workflows`

  // Both tell of the version that the execution began with, whatever is served now.
  const [svg, definition] = await Promise.all([
    text(executionPath(id, "/graph?format=svg"), { signal }).catch(() => ""),
    get(executionPath(id, "/graph"), { signal }).catch(() => ({})),
  ])
  const fieldsOf = new Map((definition.nodes || []).map((node) => [node.id, node]))

  const head = h("p", { class: "facts" })
  const live = h("span", { class: "live", role: "status" })
  const actions = h("div", { class: "actions" })
  const problem = h("div", { class: "problem", role: "alert", hidden: true })
  const failure = h("section", { class: "notice error", hidden: true, "aria-label": "Error" })
  const outcome = h("section", { class: "notice good outcome", hidden: true, "aria-label": "Result" })
  const waits = h("section", { class: "waits", hidden: true, "aria-label": "What it waits for" })
  const view = h("div", { class: "view" })
  const details = h("aside", { class: "details", "aria-label": "Node" })
  const bar = h("div", {})
  const state = h("div", { class: "state" })

  const select = (key, quiet) => {
    selected = key
    const node = key.includes("#") ? key.slice(0, key.lastIndexOf("#")) : key
    drawn.select(node)
    inspect()
    replace(executionLink(id, `/${tab || "graph"}/${encodeURIComponent(key)}`))
    if (!quiet) announce(`${node} is shown`)
  }
  const drawn = svg ? graph(svg, (name) => select(model.nodes.get(name)?.key || name)) : { element: h("p", { class: "empty" }, "The drawing is not there."), show() {}, select() {} }
  const gantt = timeline(model, select)
  const log = eventLog(model, select)

  // While events come, what is shown of a node is made anew only when something has happened to it.
  let inspected = ""
  const inspect = (live = false) => {
    const on = model.byKey.get(selected) || model.nodes.get(selected)
    const is = `${selected} ${on?.key} ${on?.changes} ${model.ended} ${on ? model.byNode.get(on.node).length : 0}`
    if (live && is === inspected) return undefined
    inspected = is
    if (!selected) return fill(details, h("p", { class: "hint" }, "Choose a node to see what it was given, what it gave, and how it went."))
    const visit = model.byKey.get(selected) || model.nodes.get(selected)
    const node = visit ? visit.node : selected
    const about = fieldsOf.get(node)
    if (!visit) return fill(details, h("h2", {}, node), badge(stateOf(model, node)), h("p", { class: "hint" }, model.ended === null ? "It has not begun." : "The execution ended without it."))
    const all = model.byNode.get(node)
    const others = all.length > MOST_VISITS ? [...new Set([visit, ...all.slice(-MOST_VISITS)])] : all
    const inputs = inputsOf(model, visit, about?.input_fields || [], document_.result)
    const open = [...details.querySelectorAll("details[open]")].map((one) => one.dataset.part)
    return fill(details, h("h2", {}, node), h("p", { class: "facts" }, badge(visit.state), about ? h("span", {}, about.agent_type) : null,
      h("span", {}, visit.end === null ? "since " : "", visit.end === null ? time(new Date(visit.begin).toISOString()) : seconds((visit.end - visit.begin) / 1000))),
      others.length > 1 ? h("label", { class: "field" }, `Visit, of ${all.length}`, h("select", { onchange: (event) => select(event.target.value) },
        others.map((one) => h("option", { value: one.key, selected: one === visit }, `${one.visit}: ${one.state}`)))) : null,
      visit.error ? h("div", { class: "notice error" }, h("strong", {}, visit.error.code), h("p", {}, visit.error.message)) : null,
      visit.told ? h("div", { class: "told" }, visit.told.progress !== null ? h("label", {}, visit.told.message || "Progress", h("progress", { max: 1, value: visit.told.progress })) : null,
        visit.told.text ? h("pre", { class: "value" }, visit.told.text) : null,
        visit.told.logs.length ? h("ul", { class: "logs" }, visit.told.logs.map((one) => h("li", {}, one.message, one.fields && Object.keys(one.fields).length ? h("code", {}, ` ${json(one.fields)}`) : null))) : null) : null,
      section("Inputs", inputs.length ? h("dl", {}, inputs.map((one) => [h("dt", {}, one.field, one.source ? h("span", { class: "hint" }, ` from ${one.source}`) : null),
        h("dd", {}, one.value === undefined ? h("span", { class: "hint" }, one.known ? "nothing" : "not known before the end") : shown(one.value))])) : h("p", { class: "hint" }, "It reads no fields.")),
      section("Outputs", visit.delta && Object.keys(visit.delta).length ? h("dl", {}, Object.entries(visit.delta).map(([name, value]) => [h("dt", {}, name), h("dd", {}, shown(value))]))
        : h("p", { class: "hint" }, visit.end === null ? "None yet." : "It wrote nothing.")),
      section(`Attempts (${visit.attempts.length})`, h("ol", { class: "attempts" }, visit.attempts.map((one) => h("li", { value: one.number },
        one.end === null ? "goes on" : seconds((one.end - one.begin) / 1000), one.error ? h("span", { class: "bad" }, ` ${one.error.code}: ${one.error.message}`) : null)))),
      visit.items ? h("p", {}, `${visit.items} items of a list are done.`) : null,
      visit.waits.length ? section("Answers", h("ul", {}, visit.waits.map((one) => h("li", {}, one.wait?.prompt || one.wait?.type, one.end === null ? " – open" : ` – ${one.action}${one.by ? ` by ${one.by}` : ""}`)))) : null,
      visit.edges?.length ? h("p", {}, "Went on to ", visit.edges.join(", ")) : null,
      FINISHED.has(document_.status) ? h("button", { type: "button", onclick: () => retryDialog(visit.key) }, "Run again from here…") : null)
    function section(name, content) {
      const part = name.split(" ")[0]
      return h("details", { open: open.length ? open.includes(part) : ["Inputs", "Outputs"].includes(part), data: { part } }, h("summary", {}, name), content)
    }
  }

  const act = async (work) => {
    problem.hidden = true
    try {
      await work()
    } catch (error) {
      problem.hidden = false
      fill(problem, h("p", {}, error.message), error.errors?.length ? h("ul", {}, error.errors.map((one) => h("li", {}, one.message))) : null)
      problem.scrollIntoView({ block: "nearest" })
    }
  }

  const ask = (box) => {
    document.body.append(box)
    box.showModal()
    signal.addEventListener("abort", () => box.close(), { once: true }) // it goes with its view
  }

  function retryDialog(from, latest) {
    const visits = model.visits.length > MOST_VISITS ? model.visits.filter((one) => one.key === from || model.nodes.get(one.node) === one) : model.visits
    const choice = h("select", { id: fresh("from") }, [...(document_.status === "completed" ? [] : [["failed", "what failed or did not end"]]), ["start", "the beginning"], ...visits.map((one) => [one.key, one.key])]
      .map(([value, text]) => h("option", { value, selected: value === from }, text)))
    const version = h("select", { id: fresh("definition") }, [["pinned", "the version it began with"], ["latest", "the version that is served now"]].map(([value, text]) => h("option", { value, selected: latest && value === "latest" }, text)))
    const patch = h("textarea", { id: fresh("patch"), rows: 3, spellcheck: false, placeholder: "{ … }" })
    const outcome = h("p", { role: "status" })
    const wrong = h("div", { class: "problem", role: "alert", hidden: true })
    const body = () => ({ from: choice.value, definition: version.value, ...(patch.value.trim() ? { state_patch: JSON.parse(patch.value) } : {}) })
    const attempt = async (dry) => {
      wrong.hidden = true
      sure.disabled = true
      try {
        const made = await post(executionPath(id, "/retry"), { ...body(), dry_run: dry })
        if (dry) outcome.textContent = `${made.nodes?.length ? `Runs ${made.nodes.slice(0, 12).join(", ")}${made.nodes.length > 12 ? " …" : ""}` : "Runs what follows"}; keeps ${made.keeps} results.`
        else {
          box.close()
          location.hash = executionLink(made.execution_id)
        }
      } catch (error) {
        wrong.hidden = false
        wrong.textContent = error instanceof SyntaxError ? "The changes are not JSON" : error.message
      } finally {
        sure.disabled = false
      }
    }
    const sure = h("button", { type: "submit", class: "primary" }, "Run again")
    const title = fresh("retry")
    const box = h("dialog", { "aria-labelledby": title, onclose: () => box.remove() }, h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); attempt(false) } },
      h("h2", { id: title }, "Run again"), h("p", { class: "hint" }, "A new execution; results of nodes before that point are kept."),
      h("div", { class: "field" }, h("label", { htmlFor: choice.id }, "From"), choice), h("div", { class: "field" }, h("label", { htmlFor: version.id }, "Workflow"), version),
      h("div", { class: "field" }, h("label", { htmlFor: patch.id }, "Fields to change (JSON, optional)"), patch), outcome, wrong,
      h("div", { class: "actions" }, sure, h("button", { type: "button", onclick: () => attempt(true) }, "What would run?"), h("button", { type: "button", onclick: () => box.close() }, "Close"))))
    ask(box)
  }

  function confirmDialog(question, what, work) {
    const title = fresh("confirm")
    const box = h("dialog", { "aria-labelledby": title, onclose: () => box.remove() }, h("h2", { id: title }, question),
      h("div", { class: "actions" }, h("button", { type: "button", class: "danger", onclick: () => { box.close(); act(work) } }, what), h("button", { type: "button", onclick: () => box.close() }, "Back")))
    ask(box)
  }

  const link = (one) => executionLink(id, `/${one || "graph"}`)
  let waiting = ""
  let concluded = false
  const drawDocument = () => {
    const done = FINISHED.has(document_.status)
    fill(head, badge(document_.status), h("span", {}, "started ", time(document_.started_at || document_.created_at)), done ? h("span", {}, `took ${seconds(document_.execution_time)}`) : null,
      h("span", {}, `${document_.nodes_executed} ${document_.nodes_executed === 1 ? "node" : "nodes"} ran`), Object.entries(document_.usage || {}).filter(([, count]) => typeof count === "number" && count).map(([name, count]) => h("span", {}, `${count} ${name}`)), document_.owner ? h("span", {}, `for ${document_.owner}`) : null,
      !done && document_.estimated_completion ? h("span", {}, "likely done ", time(document_.estimated_completion)) : null,
      document_.retry_of ? h("a", { href: executionLink(document_.retry_of) }, "again after an earlier one") : null,
      (document_.tags || []).map((tag) => h("a", { class: "chip", href: `#/executions?tag=${encodeURIComponent(tag)}` }, tag)), live)
    document.title = `${document_.graph_name} ${document_.status} · Workflows`
    fill(actions, done ? [h("button", { type: "button", class: "primary", onclick: () => retryDialog("failed") }, "Run again…"),
      h("button", { type: "button", onclick: () => confirmDialog("Delete this execution, its state and its events?", "Delete it", async () => { await call("DELETE", executionPath(id)); location.hash = "#/executions" }) }, "Delete…")]
      : h("button", { type: "button", class: "danger", onclick: () => confirmDialog("End this execution now?", "Cancel it", async () => { document_ = await post(executionPath(id, "/cancel")); drawDocument() }) }, "Cancel…"))
    failure.hidden = !document_.error
    failure.className = document_.status === "cancelled" ? "notice" : "notice error"
    if (document_.error) fill(failure, failed(document_, definition, (from, version) => retryDialog(model.nodes.get(from)?.key || from, version), link))
    concluded = document_.status === "completed" && Boolean(document_.result)
    outcome.hidden = !concluded || tab === "state" // which shows all of it
    if (concluded) fill(outcome, gave(document_.result, definition, link))
    const open = document_.waiting || []
    const said = open.map((one) => one.path).join("\n")
    waits.hidden = !open.length
    if (said !== waiting) {
      const kept = new Map([...waits.querySelectorAll("[data-wait]")].map((one) => [one.dataset.wait, one]))
      fill(waits, open.map((one) => kept.get(one.path) || waitForm(id, one, (after) => { document_ = after; drawDocument(); announce("The answer is kept") })))
      waiting = said
    }
    fill(state, document_.result ? shown(json(document_.result)) : h("p", { class: "empty" }, "The state is shown when the execution has ended, or waits."))
  }

  const views = { "": [drawn.element, details], timeline: [gantt.element, details], events: [log.element, details], state: [state] }
  const turn = (event) => {
    const target = event.target.closest("a")
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return
    const next = Object.keys(TABS).find((one) => link(one) === target.getAttribute("href"))
    if (next === undefined) return
    event.preventDefault()
    if (next === tab) return
    replace(link(next))
    switchTo(next)
    bar.querySelector("[aria-current]")?.focus()
  }
  for (const place of [bar, outcome]) place.addEventListener("click", turn)
  const switchTo = (name) => {
    tab = name
    outcome.hidden = !concluded || tab === "state"
    fill(bar, tabs(TABS, tab, link))
    const [big, side] = views[tab]
    fill(view, side ? h("div", { class: "split" }, big, side) : big)
    update()
  }
  const update = () => {
    if (tab === "") drawn.show((node) => stateOf(model, node), model.taken)
    if (tab === "timeline") gantt.update()
    if (tab === "events") log.update()
  }

  fill(main, h("div", { class: "page-head" }, h("div", {}, h("p", { class: "crumb" }, h("a", { href: "#/executions" }, "Executions"), " / ", h("code", {}, id)),
    h("h1", {}, h("a", { href: workflowLink(document_.graph_id || document_.graph_name) }, document_.graph_name))), actions), head, problem, failure, outcome, waits, bar, view)
  drawDocument()
  switchTo(tab)
  inspect()
  if (selected) drawn.select(selected.includes("#") ? selected.slice(0, selected.lastIndexOf("#")) : selected)

  // What comes is drawn once a frame; the document is asked for again when something has ended or waits.
  let dirty = false
  let asking = false
  let again = false
  const refresh = async () => {
    again = true // what is being answered now may be older than what happened meanwhile
    if (asking) return
    asking = true
    while (again && !signal.aborted) {
      again = false
      try {
        document_ = await get(executionPath(id), { signal })
        drawDocument()
        inspect()
      } catch { /* the stream says what is wrong */ }
    }
    asking = false
  }
  const onLive = (events) => {
    tell(model, events)
    if (selected === null) {
      const key = events[0].path.split("/")[0]
      if (model.byKey.has(key)) select(key, true)
    }
    draw()
  }
  const onEvents = (events) => {
    take(model, events)
    if (selected === null && events.some((one) => one.node && one.error)) select(`${events.findLast((one) => one.node && one.error).node}#${events.findLast((one) => one.node && one.error).visit}`, true)
    if (events.some((one) => ["suspended", "resumed"].includes(one.event) || FINISHED.has(one.event))) refresh()
    const last = events.at(-1)
    if (FINISHED.has(last.event)) announce(`The execution is ${last.event}`)
    else if (last.event === "suspended") announce(`${last.node} waits for an answer`)
    draw()
  }
  const draw = () => {
    if (dirty) return
    dirty = true
    requestAnimationFrame(() => {
      dirty = false
      update()
      if (selected) inspect(true)
      if (!FINISHED.has(document_.status) && ["running", "suspended"].includes(model.status) && model.status !== document_.status && document_.status !== "suspended") {
        document_ = { ...document_, status: model.status }
        drawDocument()
      }
    })
  }
  const words = { live: "live", hidden: "", reconnecting: "connection lost, trying again…", ended: "" }
  const onState = (name) => {
    live.textContent = words[name]
    live.className = `live is-${name}`
    if (name === "ended") refresh()
  }
  const ticking = setInterval(() => { if (model.ended === null && tab === "timeline" && !document.hidden) gantt.update() }, 1000)
  signal.addEventListener("abort", () => clearInterval(ticking))
  follow(id, { onEvents, onLive, onState, signal }).catch((error) => {
    if (signal.aborted) return
    problem.hidden = false
    fill(problem, h("p", {}, error.status === 404 ? "This execution is gone." : error.message))
  })
}

// What an execution gave: the fields that its nodes wrote, the last first.
function gave(result, definition, link) {
  const written = new Set((definition.nodes || []).flatMap((node) => node.output_fields || []))
  const names = Object.keys(result).filter((name) => written.has(name)).reverse()
  const first = names.slice(0, MOST_FIELDS)
  return [h("h2", {}, "Result"), first.length ? h("dl", {}, first.map((name) => [h("dt", {}, name), h("dd", {}, shown(short(result[name], 2000)))])) : h("p", {}, "It wrote no fields."),
    names.length > first.length ? h("p", {}, h("a", { href: link("state") }, `${names.length - first.length} more that it wrote, in the state`)) : null]
}

// What went wrong, where, and what can be done about it.
const LASTING = new Set(["result_invalid", "output_too_large", "routing_invalid", "service_missing", "not_allowed", "data_unusable", "map_over_invalid", "model_answer_invalid"])
function failed({ error, graph_id, graph_name, status }, definition, again, link) {
  const { code, message, node, source } = error
  const lasting = LASTING.has(code)
  const there = (definition.nodes || []).some((one) => one.id === node)
  if (status === "cancelled") return [h("h2", {}, "It was cancelled"), h("p", {}, "What was done before is kept, and an execution that is run again goes on from there.")]
  return [h("h2", {}, node ? `${node} failed` : status === "interrupted" ? "It was interrupted" : "It failed"), h("p", {}, message),
    h("p", { class: "hint" }, code, source?.row ? [" · ", h("a", { href: workflowLink(graph_id || graph_name, "source") }, `${source.file}, row ${source.row}`)] : ""),
    h("p", {}, lasting ? "This will not pass by itself. Correct the row or what it calls, have the files read again, and run it with the version that is served then; results of the nodes before it are kept."
      : "When the cause is gone, run it again from there; results of the nodes before it are kept."),
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => again(there ? node : "failed", lasting) }, there ? `Run again from ${node}…` : "Run again from there…"))]
}

// Somebody who is asked something by another's execution sees the questions only.
function assigneePage({ main, id, document_ }) {
  const draw = (found) => fill(main, h("div", { class: "page-head" }, h("h1", {}, found.graph_name)), h("p", { class: "facts" }, badge(found.status)),
    found.waiting?.length ? found.waiting.map((wait) => waitForm(id, wait, (after) => { announce("The answer is kept"); draw(after) })) : h("p", { class: "notice good" }, "It asks you nothing more. Thank you!"))
  draw(document_)
}
