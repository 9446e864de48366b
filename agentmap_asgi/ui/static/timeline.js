// The timeline of the visits of nodes (a Gantt chart), and the log of events. Both draw only the rows in sight.

import { fill, h, json, MARKS, seconds, virtual } from "./dom.js"

const ROW = 30

export function timeline(model, onSelect) {
  const axis = h("div", { class: "axis", "aria-hidden": "true" })
  const now = () => (model.ended ?? Math.max(model.last ?? 0, Date.now()))
  // Bars stand where the whole length says that they do, so that only one number changes while the run goes on.
  const part = (style, begin, until, title) => {
    const made = h("span", { class: `bar ${style}`, title })
    made.style.setProperty("--from", Math.max(0, begin - model.begun))
    if (until === null) made.classList.add("open")
    else made.style.setProperty("--to", Math.max(0, until - model.begun))
    return made
  }
  const row = (at) => {
    const visit = model.visits[at]
    const took = ((visit.end ?? now()) - visit.begin) / 1000
    const name = visit.visit > 1 ? `${visit.node} #${visit.visit}` : visit.node
    const label = `${name}, ${visit.state}, ${visit.end === null ? "so far" : "took"} ${seconds(took)}, began after ${seconds((visit.begin - model.begun) / 1000)}`
    const track = h("span", { class: "track" }, part(visit.state, visit.begin, visit.end, label))
    if (visit.attempts.length > 1) for (const one of visit.attempts.slice(0, -1)) track.append(part("tried", one.begin, one.end ?? visit.end, `attempt ${one.number} failed`))
    for (const one of visit.waits) track.append(part("waits", one.begin, one.end ?? visit.end, "waits for an answer"))
    return h("div", { class: "gantt-row" }, h("button", { type: "button", class: "quiet", "aria-label": label, onclick: () => onSelect(visit.key) },
      h("span", { class: `mark ${visit.state}` }, MARKS[visit.state] || "·"), h("span", { class: "who" }, name), track, h("span", { class: "took" }, seconds(took))))
  }
  const key = (at) => {
    const visit = model.visits[at]
    return `${visit.changes} ${visit.end === null ? Math.floor(now() / 1000) : ""}`
  }
  const list = virtual({ height: ROW, row, key, label: "Timeline" })
  const none = h("p", { class: "empty" }, "Nothing has run yet.")
  const marks = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const made = h("span", {}, "0")
    made.style.left = `${share * 100}%`
    return { made, share }
  })
  fill(axis, marks.map(({ made }) => made))
  return {
    element: h("div", { class: "gantt" }, none, axis, list.element),
    update() {
      none.hidden = model.visits.length > 0
      axis.hidden = list.element.hidden = !model.visits.length
      if (!model.visits.length) return
      const end = Math.max(0.001, now() - model.begun)
      list.element.style.setProperty("--end", end)
      for (const { made, share } of marks) if (share) made.textContent = seconds(end * share / 1000)
      list.update(model.visits.length)
    },
  }
}

export function eventLog(model, onSelect) {
  let shownOnes = model.events
  let looked = 0 // so many events have been compared with what is looked for
  let wanted = ""
  const search = h("input", { type: "search", placeholder: "Node or event", "aria-label": "Find events" })
  const details = h("div", { class: "event-details", "aria-live": "polite" })
  const about = (event) => {
    if (event.error) return `${event.error.code ?? ""} ${event.error.message ?? ""}`
    if (event.event === "node_finished") return `${event.status}, ${seconds(event.duration_seconds)}${event.edge_taken?.length ? ` → ${event.edge_taken.join(", ")}` : ""}`
    if (event.waiting) return event.waiting.prompt
    if (event.action) return `${event.action}${event.by ? ` by ${event.by}` : ""}`
    return ""
  }
  const row = (at) => {
    const event = shownOnes[at]
    return h("div", { class: `event ${event.event}` }, h("button", { type: "button", class: "quiet", onclick: () => tell(event) },
      h("span", { class: "number" }, event.sequence), h("span", { class: "when" }, `+${seconds((Date.parse(event.at) - Date.parse(model.events[0].at)) / 1000)}`),
      h("span", { class: "what" }, event.event.replace(/_/g, " ")), h("span", { class: "who" }, event.node ? `${event.node}${event.visit > 1 ? ` #${event.visit}` : ""}` : ""), h("span", { class: "about" }, about(event))))
  }
  const tell = (event) => fill(details, h("h2", {}, `Event ${event.sequence}`), h("pre", { class: "value", tabIndex: 0 }, json(event)),
    event.node ? h("button", { type: "button", onclick: () => onSelect(`${event.node}#${event.visit}`) }, `See ${event.node}`) : null)
  const list = virtual({ height: 28, row, key: (at) => shownOnes[at].sequence, label: "Events" })
  const fits = (one) => `${one.event} ${one.event.replace(/_/g, " ")} ${one.node || ""}`.toLowerCase().includes(wanted)
  const update = () => {
    const asked = search.value.trim().toLowerCase()
    if (asked !== wanted) [wanted, looked, shownOnes] = [asked, 0, asked ? [] : model.events]
    if (wanted) for (; looked < model.events.length; looked++) if (fits(model.events[looked])) shownOnes.push(model.events[looked])
    list.update(shownOnes.length, live)
    live = model.ended === null
    count.textContent = `${shownOnes.length} of ${model.events.length}`
  }
  let live = false // who opens a run that has ended reads from its beginning
  const count = h("span", { class: "hint" })
  search.addEventListener("input", update)
  return { element: h("div", { class: "log" }, h("div", { class: "log-tools" }, search, count), list.element, details), update }
}
