// Workflows: the list with their health, and each with its drawing, its form, its rows and its versions.

import { get, post, Problem, query, randomKey, text, workflowPath } from "./api.js"
import { announce, badge, fill, h, short, tabs, time } from "./dom.js"
import { fieldsOf } from "./form.js"
import { graph } from "./graph.js"

export const workflowLink = (id, tab = "") => `#/workflow/${encodeURIComponent(id)}${tab && `/${tab}`}`
export const executionLink = (id, more = "") => `#/execution/${encodeURIComponent(id)}${more}`

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`

function health(workflow) {
  const parts = Object.entries(workflow.problems || {}).filter(([, count]) => count)
  return h("span", { class: "health" }, badge(workflow.status),
    parts.map(([kind, count]) => h("span", { class: `chip ${kind}` }, plural(count, kind === "info" ? "note" : kind))))
}

export async function workflowsPage({ main, signal }) {
  const found = await get("list", { signal })
  const search = h("input", { type: "search", id: "workflow-search", placeholder: "Name, file or description", "aria-label": "Find a workflow" })
  const cards = h("ul", { class: "cards" })
  const draw = () => {
    const wanted = search.value.trim().toLowerCase()
    const shown = found.workflows.filter((one) => !wanted || `${one.graph_id} ${one.description}`.toLowerCase().includes(wanted))
    const runs = (one) => Object.entries(one.statistics?.executions || {}).map(([state, count]) => `${count} ${state}`).join(", ")
    fill(cards, shown.slice(0, 500).map((one) => h("li", { class: `card ${one.status}` },
      h("h2", {}, h("a", { href: workflowLink(one.graph_id) }, one.name)),
      health(one),
      h("p", { class: "about" }, one.description || "No description"),
      h("p", { class: "hint" }, [one.file, plural(one.node_count, "node"), runs(one)].filter(Boolean).join(" · ")),
      one.diagnostics?.length ? h("p", { class: "first-problem" }, short(one.diagnostics[0].message, 160)) : null)))
    if (shown.length > 500) cards.append(h("li", { class: "empty" }, `${shown.length - 500} more: type a part of the name`))
    if (!shown.length && found.workflows.length) cards.append(h("li", { class: "empty" }, "No workflow fits that."))
  }
  search.addEventListener("input", draw)
  draw()
  fill(main,
    h("div", { class: "page-head" }, h("h1", {}, "Workflows"), found.workflows.length > 5 ? search : null),
    found.problems?.length ? h("section", { class: "notice error", "aria-label": "Problems of files" }, h("h2", {}, "Problems of files"), diagnosticsList(found.problems)) : null,
    found.workflows.length ? cards : h("div", { class: "empty" }, h("h2", {}, "No workflows yet"),
      h("p", {}, "Put a CSV file with the columns GraphName, Node and Edge into the folder that is served, then read the files again (POST /reload) or restart.")))
}

const sentence = ({ message, hint }) => `${message}${hint && !/[.?!]$/.test(message) ? "." : ""}${hint ? " " : ""}`

export function diagnosticsList(found) {
  return h("ul", { class: "diagnostics" }, found.map((one) => h("li", { class: one.severity },
    h("span", { class: `chip ${one.severity}` }, one.severity), " ",
    h("strong", {}, [one.file, one.row ? `row ${one.row}` : "", one.column_name ? `${one.column_name}${one.column ? ` (${one.column})` : ""}` : ""].filter(Boolean).join(", ")),
    " ", sentence(one), one.hint ? h("span", { class: "hint" }, one.hint) : null, h("code", {}, ` ${one.code}`))))
}

const TABS = { "": "Graph", run: "Run", source: "Rows", versions: "Versions" }

export async function workflowPage({ main, signal, parts: [id, tab = "", node], go }) {
  const definition = await get(workflowPath(id), { signal })
  const views = { "": graphView, run: runView, source: sourceView, versions: versionsView }
  const view = h("div", { class: "view" })
  document.title = `${definition.name} · Workflows`
  fill(main,
    h("div", { class: "page-head" }, h("div", {}, h("h1", {}, definition.name), definition.description ? h("p", { class: "about" }, definition.description) : null),
      definition.status === "broken" ? null : h("a", { class: "button primary", href: workflowLink(id, "run") }, "Run…")),
    h("p", { class: "facts" }, health(definition), h("span", {}, definition.file), h("span", {}, plural(definition.nodes.length, "node")),
      h("span", { title: definition.version }, "version ", h("code", {}, definition.version.slice(0, 10))),
      h("a", { href: `#/executions${query({ graph: definition.graph_id })}` }, "Its executions")),
    tabs(TABS, Object.hasOwn(views, tab) ? tab : "", (name) => workflowLink(id, name)), view)
  await (Object.hasOwn(views, tab) ? views[tab] : graphView)({ view, id, definition, signal, node, go })
}

async function graphView({ view, id, definition, signal, node: chosen }) {
  const details = h("aside", { class: "details", "aria-label": "Node" })
  const tell = (name) => {
    const node = definition.nodes.find((one) => one.name === name)
    drawn.select(name)
    if (!node) return fill(details, h("h2", {}, name), h("p", {}, "There is no such node; a cell names it."))
    const leads = definition.edges.filter((edge) => edge.source === name)
    const about = definition.diagnostics.filter((one) => one.node === name)
    announce(`${name} is shown`)
    return fill(details, h("h2", {}, name), node.description ? h("p", {}, node.description) : null,
      h("dl", {},
        h("dt", {}, "Agent"), h("dd", {}, node.agent_type), h("dt", {}, "Row"), h("dd", {}, h("a", { href: workflowLink(id, "source") }, node.row)),
        node.input_fields.length ? [h("dt", {}, "Reads"), h("dd", {}, node.input_fields.map((one) => h("code", { class: "word" }, one)))] : null,
        node.output_fields.length ? [h("dt", {}, "Writes"), h("dd", {}, node.output_fields.map((one) => h("code", { class: "word" }, one)))] : null,
        node.prompt ? [h("dt", {}, "Prompt"), h("dd", {}, h("pre", { class: "value" }, node.prompt))] : null,
        leads.length ? [h("dt", {}, "Leads to"), h("dd", {}, leads.map((edge) => h("div", {}, edge.target, edge.label ? h("span", { class: "hint" }, ` ${edge.label}`) : null)))] : null),
      about.length ? diagnosticsList(about) : null)
  }
  const drawn = graph(await text(workflowPath(id, "/graph?format=svg"), { signal }), tell)
  fill(view, definition.diagnostics.length ? h("details", { class: "notice", open: definition.status !== "ok" }, h("summary", {}, `${plural(definition.diagnostics.length, "finding")} of the check`), diagnosticsList(definition.diagnostics)) : null,
    h("div", { class: "split" }, drawn.element, details))
  fill(details, h("p", { class: "hint" }, "Choose a node to see what it reads, writes and where it leads."))
  if (chosen || definition.entry_point) tell(chosen || definition.entry_point)
}

async function runView({ view, id, definition, go }) {
  if (definition.status === "broken") {
    fill(view, h("div", { class: "notice error" }, h("h2", {}, "It cannot be started"), h("p", {}, "Its file has errors. Correct these rows, and have the files read again:"), diagnosticsList(definition.diagnostics.filter((one) => one.severity === "error"))))
    return
  }
  const properties = Object.keys(definition.input_schema.properties || {})
  const form = fieldsOf(definition.input_schema, { pointer: "/initial_state" })
  const whole = h("textarea", { id: "whole", rows: 8, spellcheck: false, "aria-label": "Initial state as JSON" })
  const byJson = h("input", { type: "checkbox", id: "by-json", checked: false })
  const area = h("div", {})
  const nothing = h("p", { class: "hint" }, "It reads nothing from outside; it can be started as it is.")
  const swap = () => {
    if (byJson.checked) {
      whole.value = JSON.stringify(form.read()?.value ?? {}, null, 2)
      fill(area, h("div", { class: "field" }, h("label", { htmlFor: "whole" }, "Initial state"), whole, h("span", { class: "hint" }, "A JSON object; it may hold further fields.")))
    } else fill(area, properties.length ? null : nothing)
    form.element.classList.toggle("only-problem", byJson.checked)
  }
  byJson.addEventListener("change", swap)
  swap()
  const tags = h("input", { id: "tags", type: "text", autocomplete: "off" })
  const start = h("button", { type: "submit", class: "primary" }, "Run")
  let key = randomKey()
  const element = h("form", { class: "panel", "aria-label": `Run ${definition.name}`, onsubmit: async (event) => {
    event.preventDefault()
    let state
    if (byJson.checked) {
      try {
        state = JSON.parse(whole.value || "{}")
      } catch (error) {
        return form.fail(new Problem(0, { detail: `The initial state is not JSON: ${error.message}` }))
      }
    } else {
      const read = form.read()
      if (!read) return
      state = read.value
    }
    start.disabled = true
    try {
      const words = tags.value.split(",").map((one) => one.trim()).filter(Boolean)
      const body = { graph_name: definition.graph_id, initial_state: state, mode: "async", ...(words.length ? { tags: words } : {}) }
      const made = await post("execute", body, { headers: { "Idempotency-Key": key } })
      go(executionLink(made.execution_id))
    } catch (problem) {
      if (problem.status) key = randomKey()
      form.fail(problem)
    } finally {
      start.disabled = false
    }
  } }, area, form.element,
    h("div", { class: "field" }, h("label", { htmlFor: "tags" }, "Tags"), tags, h("span", { class: "hint" }, "Words to find the execution by, with commas between; may be left empty.")),
    h("div", { class: "field check" }, byJson, h("label", { htmlFor: "by-json" }, "Write the initial state as JSON")),
    h("div", { class: "actions" }, start))
  fill(view, element)
}

async function sourceView({ view, id, definition, signal }) {
  let found
  try {
    found = await get(workflowPath(id, "/source"), { signal })
  } catch (problem) {
    if (problem.status === 401) throw problem
    fill(view, h("p", { class: "notice" }, `The rows cannot be shown: ${problem.message}`), diagnosticsList(definition.diagnostics))
    return
  }
  const at = new Map()
  for (const one of found.diagnostics) {
    const place = `${one.row}:${one.column || ""}`
    at.set(place, [...(at.get(place) || []), one])
  }
  const notes = (held) => held.map((one) => h("span", { class: `cell-note ${one.severity}` }, h("strong", {}, `${one.severity}: `), sentence(one), one.hint || ""))
  const cellOf = (row, column, content) => {
    const held = at.get(`${row.row}:${column.letter}`) || []
    return h("td", { class: held.length ? `flawed ${held[0].severity}` : "" }, h("span", { class: "cell-text" }, content), notes(held))
  }
  const used = found.columns.map((column, place) => ({ ...column, place })).filter(({ letter, place }) => found.rows.some((row) => row.cells[place] || at.has(`${row.row}:${letter}`)))
  fill(view,
    found.changed ? h("p", { class: "notice" }, "The file has changed since it was read; its rows may have moved. Have the files read again to see what it says now.") : null,
    h("p", { class: "facts" }, h("span", {}, found.file), h("span", {}, plural(found.rows.length, "row")), found.diagnostics.length ? h("span", {}, plural(found.diagnostics.length, "finding")) : h("span", {}, "nothing to complain about")),
    h("div", { class: "table-frame", tabIndex: 0, role: "region", "aria-label": "Rows of the file" },
      h("table", { class: "sheet" }, h("caption", { class: "unseen" }, `Rows of ${definition.name}`),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Row"), used.map((column) => h("th", { scope: "col" }, h("span", { class: "hint" }, column.letter), " ", column.name)))),
        h("tbody", {}, found.rows.map((row) => h("tr", {}, h("th", { scope: "row", class: at.has(`${row.row}:`) ? "flawed" : "" }, row.row, notes(at.get(`${row.row}:`) || [])),
          used.map((column) => cellOf(row, column, row.cells[column.place] ?? ""))))))))
  const rest = found.diagnostics.filter((one) => !found.rows.some((row) => row.row === one.row))
  if (rest.length) view.append(diagnosticsList(rest))
}

async function versionsView({ view, id, definition, signal }) {
  let found
  try {
    found = await get(workflowPath(id, "/versions"), { signal })
  } catch (problem) {
    if (problem.status === 401) throw problem
    fill(view, h("p", {}, "The version that is served now: ", h("code", {}, definition.version)),
      h("p", { class: "hint" }, "This service keeps no list of versions. Executions keep the version they began with."))
    return
  }
  const out = h("div", { "aria-live": "polite" })
  const compare = async (version) => {
    try {
      const difference = await get(workflowPath(id, `/diff${query({ from: version })}`), { signal })
      fill(out, h("h2", {}, `From ${version.slice(0, 12)} to now`), h("pre", { class: "value", tabIndex: 0 }, difference.text || "Nothing has changed that matters for executions."))
    } catch (problem) {
      fill(out, h("p", { class: "problem", role: "alert" }, problem.message))
    }
  }
  fill(view, found.versions.length ? h("ol", { class: "versions" }, found.versions.map((one) => h("li", {},
    h("code", { title: one.version }, one.version.slice(0, 12)), " ", h("span", { class: "hint" }, "since ", time(one.since)), " ",
    one.current ? h("strong", {}, "served now") : h("button", { type: "button", onclick: () => compare(one.version) }, "Compare with now"))))
    : h("p", { class: "empty" }, "No version has been served yet."), out)
}

