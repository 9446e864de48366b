// The list of executions, with filters and pages; and those that wait for an answer.

import { get, query } from "./api.js"
import { arrange, badge, fill, h, seconds, time } from "./dom.js"
import { waitForm } from "./waits.js"
import { executionLink, workflowLink } from "./workflows.js"

const STATUSES = ["queued", "running", "suspended", "completed", "failed", "cancelled", "interrupted"]
const LIMIT = 50
const EVERY = 4000

export async function executionsPage({ main, signal, asked, go }) {
  const filters = Object.fromEntries(["graph", "status", "tag", "since", "until"].map((name) => [name, asked.get(name) || ""]))
  const cursor = asked.get("cursor") || ""
  const named = get("list", { signal }).then((found) => found.workflows, () => [])
  const body = h("tbody", {})
  const pager = h("nav", { class: "pager", "aria-label": "Pages" })
  const empty = h("p", { class: "empty", hidden: true }, Object.values(filters).some(Boolean) ? "No execution fits these filters." : "Nothing has been run yet. Choose a workflow and run it.")
  let drawn = new Map()
  let before // where the older ones begin

  const load = async () => {
    const found = await get(`executions${query({ ...filters, cursor, limit: String(LIMIT) })}`, { signal })
    const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null
    const next = new Map(found.executions.map((one) => {
      const is = JSON.stringify(one)
      const known = drawn.get(one.execution_id)
      return [one.execution_id, known?.is === is ? known : { is, element: row(one) }]
    }))
    arrange(body, [...next.values()].map((one) => one.element))
    drawn = next
    if (focused && !body.contains(document.activeElement)) [...body.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus()
    empty.hidden = found.executions.length > 0
    if (before === found.next_cursor) return
    before = found.next_cursor
    const link = (more) => `#/executions${query({ ...filters, cursor: more })}`
    fill(pager, cursor ? h("a", { class: "button", href: link("") }, "Newest") : null, found.next_cursor ? h("a", { class: "button", href: link(found.next_cursor) }, "Older") : null)
  }

  const [workflows] = await Promise.all([named, load()])
  const select = h("select", { id: "f-status", name: "status" }, h("option", { value: "" }, "any"), STATUSES.map((one) => h("option", { value: one, selected: filters.status === one }, one)),
    STATUSES.includes(filters.status) || !filters.status ? null : h("option", { value: filters.status, selected: true }, filters.status))
  const known = workflows.map((one) => one.graph_id)
  const graphs = h("select", { id: "f-graph", name: "graph" }, h("option", { value: "" }, "any"), [...new Set([...known, filters.graph].filter(Boolean))].map((one) => h("option", { value: one, selected: filters.graph === one }, one.split("::").at(-1))))
  const local = (text) => {
    if (!text) return ""
    const when = new Date(text)
    return new Date(when - when.getTimezoneOffset() * 60000).toISOString().slice(0, 16)
  }
  const field = (label, input) => h("div", { class: "field" }, h("label", { htmlFor: input.id }, label), input)
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filters", onsubmit: (event) => { event.preventDefault(); apply() }, onchange: () => apply() },
    field("State", select), field("Workflow", graphs),
    h("details", { class: "more", open: Boolean(filters.tag || filters.since || filters.until) }, h("summary", {}, "More filters"), h("div", { class: "filters" },
      field("Tag", h("input", { id: "f-tag", name: "tag", type: "search", value: filters.tag })),
      field("From", h("input", { id: "f-since", name: "since", type: "datetime-local", value: local(filters.since) })),
      field("Until", h("input", { id: "f-until", name: "until", type: "datetime-local", value: local(filters.until) })))),
    Object.values(filters).some(Boolean) ? h("a", { class: "button", href: "#/executions" }, "Clear") : null)
  const apply = () => {
    const given = Object.fromEntries(new FormData(form))
    for (const name of ["since", "until"]) if (given[name]) given[name] = new Date(given[name]).toISOString()
    go(`#/executions${query(given)}`)
  }
  const at = main.contains(document.activeElement) ? document.activeElement.id : ""
  fill(main, h("div", { class: "page-head" }, h("h1", {}, "Executions")), form,
    h("div", { class: "table-frame", tabIndex: 0, role: "region", "aria-label": "Executions" }, h("table", { class: "list" },
      h("caption", { class: "unseen" }, "Executions, the newest first"),
      h("thead", {}, h("tr", {}, ["Execution", "State", "Workflow", "Started", "Took", "Nodes", "Tags"].map((one) => h("th", { scope: "col" }, one)))), body)), empty, pager)
  if (at) document.getElementById(at)?.focus({ preventScroll: true }) // a filter that is chosen with the keyboard keeps it
  repeat(load, signal)
}

function row(one) {
  return h("tr", {},
    h("th", { scope: "row" }, h("a", { href: executionLink(one.execution_id), title: one.execution_id }, one.execution_id.length > 22 ? `…${one.execution_id.slice(-12)}` : one.execution_id)),
    h("td", {}, badge(one.status)),
    h("td", {}, h("a", { href: workflowLink(one.graph_id || one.graph_name) }, one.graph_name)),
    h("td", {}, time(one.created_at)), h("td", {}, seconds(one.execution_time)), h("td", {}, one.nodes_executed ?? "–"),
    h("td", {}, (one.tags || []).map((tag) => h("a", { class: "chip", href: `#/executions${query({ tag })}` }, tag))))
}

// Again and again while the page is looked at.
export function repeat(load, signal) {
  const timer = setInterval(() => {
    if (!document.hidden) load().catch(() => {})
  }, EVERY)
  signal.addEventListener("abort", () => clearInterval(timer))
}

export async function waitingPage({ main, signal, asked }) {
  const cursor = asked.get("cursor") || ""
  const list = h("div", { class: "waiting" })
  const known = new Map()
  const load = async () => {
    const found = await get(`executions${query({ waiting_for: "me", limit: "50", cursor })}`, { signal })
    const open = new Set()
    for (const one of found.executions) {
      for (const wait of one.waiting || []) {
        const key = `${one.execution_id} ${wait.path}`
        open.add(key)
        if (known.has(key)) continue
        const made = h("section", { class: "waiting-one" },
          h("p", { class: "facts" }, h("a", { href: executionLink(one.execution_id) }, one.graph_name), one.created_at ? h("span", {}, "started ", time(one.created_at)) : null),
          waitForm(one.execution_id, wait, () => { known.delete(key); fill(made, h("p", { class: "notice good", role: "status" }, `The answer for ${wait.node} of ${one.graph_name} is kept. `, h("a", { href: executionLink(one.execution_id) }, "See how it goes on"))) }))
        known.set(key, made)
        list.append(made)
      }
    }
    for (const [key, made] of known) {
      if (open.has(key)) continue
      made.remove()
      known.delete(key)
    }
    none.hidden = list.children.length > 0
    fill(pager, cursor ? h("a", { class: "button", href: "#/waiting" }, "Newest") : null, found.next_cursor ? h("a", { class: "button", href: `#/waiting${query({ cursor: found.next_cursor })}` }, "Older") : null)
  }
  const none = h("div", { class: "empty" }, h("p", {}, "Nothing waits for you. When a workflow asks something, its form appears here."))
  const pager = h("nav", { class: "pager", "aria-label": "Pages" })
  await load()
  fill(main, h("div", { class: "page-head" }, h("h1", {}, "Waiting for an answer")), list, none, pager)
  repeat(load, signal)
}
