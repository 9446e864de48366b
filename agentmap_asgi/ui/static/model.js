// What events say of an execution: nodes, their visits and attempts, edges that were taken, what was written. Pure.

const STATES = { completed: "completed", failed: "failed", cancelled: "cancelled", interrupted: "interrupted" }

export function empty() {
  return { events: [], visits: [], byKey: new Map(), byNode: new Map(), nodes: new Map(), taken: new Map(), writes: new Map(), status: "queued", begun: null, ended: null, error: null }
}

const at = (event) => Date.parse(event.at) + (Number(event.at.slice(23, 26)) || 0) / 1000

export function take(model, events) {
  for (const event of events) {
    model.events.push(event)
    const when = at(event)
    model.begun ??= when
    model.last = when
    if (event.event === "started" || event.event === "recovered") model.status = "running"
    if (STATES[event.event]) {
      Object.assign(model, { status: event.event, ended: when, error: event.error })
      for (const visit of model.visits) if (visit.end === null) Object.assign(visit, { end: when, state: "cut", changes: visit.changes + 1 })
      continue
    }
    if (!event.node) continue
    const key = `${event.node}#${event.visit}`
    let visit = model.byKey.get(key)
    if (!visit) {
      visit = { key, node: event.node, visit: event.visit, begin: when, end: null, state: "running", attempts: [], delta: null, edges: [], error: null, items: 0, waits: [], sequence: event.sequence, changes: 0 }
      model.byKey.set(key, visit)
      model.visits.push(visit)
      if (!model.byNode.has(event.node)) model.byNode.set(event.node, [])
      model.byNode.get(event.node).push(visit)
    }
    visit.changes += 1
    model.nodes.set(event.node, visit)
    ACTIONS[event.event]?.(model, visit, event, when)
  }
  return model
}

function wrote(model, event, delta) {
  for (const [name, value] of Object.entries(delta || {})) {
    if (!model.writes.has(name)) model.writes.set(name, [])
    model.writes.get(name).push({ sequence: event.sequence, value, node: event.node })
  }
}

const ACTIONS = {
  node_started(model, visit, event, when) {
    model.status = "running"
    Object.assign(visit, { state: "running", end: null })
    visit.attempts.push({ number: event.attempt, begin: when, end: null, error: null })
  },
  node_retry(model, visit, event, when) {
    const last = visit.attempts.at(-1)
    if (last) Object.assign(last, { end: when, error: event.error })
    visit.attempts.push({ number: event.attempt + 1, begin: when + 1000 * (event.delay_seconds || 0), end: null, error: null, delay: event.delay_seconds })
  },
  item_finished(model, visit) { visit.items += 1 },
  suspended(model, visit, event, when) {
    visit.state = "waiting"
    visit.waits.push({ begin: when, end: null, wait: event.waiting })
    if (![...model.nodes.values()].some((one) => one.state === "running")) model.status = "suspended"
  },
  resumed(model, visit, event, when) {
    visit.state = "running"
    model.status = "running"
    const last = visit.waits.at(-1)
    if (last) Object.assign(last, { end: when, action: event.action, by: event.by })
  },
  patched(model, visit, event) { wrote(model, event, event.state_delta) },
  node_finished(model, visit, event, when) {
    const begin = event.duration_seconds === undefined ? visit.begin : Math.min(visit.begin, when - event.duration_seconds * 1000)
    Object.assign(visit, { state: event.status, end: when, begin, delta: event.state_delta, edges: event.edge_taken, error: event.error })
    const last = visit.attempts.at(-1)
    if (last) Object.assign(last, { end: when, error: event.error })
    wrote(model, event, event.state_delta)
    for (const target of event.edge_taken) {
      const edge = `${event.node}\n${target}`
      model.taken.set(edge, (model.taken.get(edge) || 0) + 1)
    }
  },
}

// What a node tells while it runs, and nobody keeps. A node of a sub-workflow tells it for the node that runs that.
const LIVE = {
  progress(told, event) { Object.assign(told, { progress: event.progress, message: event.message }) },
  log(told, event) { told.logs = [...told.logs.slice(-199), event] },
  token(told, event) { told.text = (event.offset ? told.text : "") + event.text },
}

export function tell(model, events) {
  for (const event of events) {
    const visit = model.byKey.get(event.path.split("/")[0])
    if (!visit) continue
    visit.told ??= { progress: null, message: "", logs: [], text: "" }
    visit.changes += 1
    LIVE[event.event]?.(visit.told, event)
  }
}

// What a visit read, so far as events and the result tell: the last that was written before it, else what was given.
export function inputsOf(model, visit, fields, result) {
  return fields.map((field) => {
    const [name, ...path] = field.split(".")
    const written = (model.writes.get(name) || []).filter((one) => one.sequence < visit.sequence).at(-1)
    const source = written ? written.node : null
    let value = written ? written.value : model.writes.has(name) ? undefined : result?.[name]
    for (const part of path) value = value?.[part]
    return { field, value, source, known: written !== undefined || (result !== null && result !== undefined && !model.writes.has(name)) }
  })
}

// The state of a node once the execution has ended, or while it goes on.
export function stateOf(model, node) {
  const visit = model.nodes.get(node)
  if (visit) return visit.state
  return model.ended === null ? "pending" : "skipped"
}
