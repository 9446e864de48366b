// Calls of the operations. Paths are relative to where this file lies, so any prefix and any proxy will do.

export const base = new URL("../", import.meta.url)
const SLOT = `agentmap:${base.pathname}`

let held = null
try { held = JSON.parse(sessionStorage.getItem(SLOT)) } catch { /* no storage: kept here only */ }
export const signedIn = () => held !== null
export const signedInBy = () => (held.kind === "bearer" ? "Authorization: Bearer" : "X-API-Key:")

export function signIn(credential) {
  held = credential
  try {
    if (held) sessionStorage.setItem(SLOT, JSON.stringify(held))
    else sessionStorage.removeItem(SLOT)
  } catch { /* as above */ }
}

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `The server answered ${status}`)
    this.status = status
    this.code = document.code || ""
    this.errors = document.errors || []
    this.requestId = document.request_id
    this.document = document
  }
}

function credentials() {
  if (!held) return {}
  return held.kind === "bearer" ? { Authorization: `Bearer ${held.secret}` } : { "X-API-Key": held.secret }
}

async function send(method, path, { body, content, signal, headers, accept = "application/json" } = {}) {
  const given = { Accept: accept, ...credentials(), ...(method === "GET" ? {} : { "Content-Type": "application/json" }), ...headers }
  let answer
  try {
    answer = await fetch(new URL(path, base), {
      method, signal, headers: given, credentials: "same-origin", cache: "no-store", redirect: "manual",
      body: method === "GET" || method === "DELETE" ? undefined : content ?? JSON.stringify(body ?? {}),
    })
  } catch (error) {
    if (error.name === "AbortError") throw error
    throw new Problem(0, { code: "unreachable", detail: "The server cannot be reached. It may have stopped, or the network is down." })
  }
  if (answer.type === "opaqueredirect") throw new Problem(401, { code: "unauthenticated", detail: "The server wants you to sign in" })
  if (!answer.ok) {
    let document = {}
    try { document = await answer.json() } catch { /* not ours */ }
    throw new Problem(answer.status, document)
  }
  return answer
}

export async function call(method, path, options) {
  const answer = await send(method, path, options)
  if (answer.status === 204) return null
  if (!(answer.headers.get("content-type") || "").includes("json")) {
    throw new Problem(answer.status, { code: "no_json", detail: "Something between here and the server answered instead of it" })
  }
  return answer.json()
}

export const get = (path, options) => call("GET", path, options)
export const post = (path, body, options) => call("POST", path, { body, ...options })
export const text = async (path, options) => (await send("GET", path, { accept: "*/*", ...options })).text()
export const raw = (method, path, options) => send(method, path, options)

// A name of dots would lead to another address than the one that is meant.
function segment(name) {
  if (name === "." || name === "..") throw new Problem(404, { code: "not_found", detail: "Nothing here has this name" })
  return encodeURIComponent(name)
}
export const segments = (id) => id.split("/").map(segment).join("/")
export const workflowPath = (id, more = "") => `workflows/${segments(id)}${more}`
export const executionPath = (id, more = "") => `executions/${segment(id)}${more}`
export function query(values) {
  const found = new URLSearchParams(Object.entries(values).filter(([, value]) => value))
  return found.size ? `?${found}` : ""
}

export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("")
}

const SILENCE = 45000 // the server says something at least every 15 seconds; a connection that is gone says nothing
const ENDS = new Set(["completed", "failed", "cancelled", "interrupted"])
const PART = 250
const HIDDEN = 15000 // a tab that nobody looks at asks now and then

// Until the time is over, or there is a reason not to wait for it.
const pause = (milliseconds, signal) => new Promise((resolve) => {
  const reasons = [[signal, "abort"], [window, "online"], [document, "visibilitychange"]]
  const over = () => {
    clearTimeout(timer)
    for (const [target, name] of reasons) target.removeEventListener(name, over)
    resolve()
  }
  const timer = setTimeout(over, milliseconds)
  for (const [target, name] of reasons) target.addEventListener(name, over)
})

// Aborts with the view, or when its tab is hidden: a browser opens six connections to a server, for all tabs together.
function whileShown(signal) {
  const controller = new AbortController()
  const done = () => {
    controller.abort()
    signal.removeEventListener("abort", done)
    document.removeEventListener("visibilitychange", look)
  }
  const look = () => { if (document.hidden) done() }
  signal.addEventListener("abort", done)
  document.addEventListener("visibilitychange", look)
  return { signal: controller.signal, done }
}

// The events of an execution, those that there are and those to come; it comes again when it is cut off, and when its
// tab is shown again.
// `onEvents` gets lists, `onLive` those that nobody keeps; `onState` gets "live", "hidden", "reconnecting" or "ended".
export async function follow(id, { onEvents, onLive, onState, signal }) {
  let last = 0
  let failures = 0
  const take = (events) => {
    const fresh = events.filter((event) => event.sequence > last)
    if (!fresh.length) return false
    last = fresh.at(-1).sequence
    failures = 0
    onEvents(fresh)
    return fresh.some((event) => ENDS.has(event.event))
  }
  const ask = async () => take((await get(executionPath(id, `/events?after=${last}`), { signal })).events)
  while (!signal.aborted) {
    const shown = whileShown(signal)
    try {
      if (document.hidden) {
        onState("hidden")
        if (await ask()) return onState("ended")
        await pause(HIDDEN, signal)
        continue
      }
      const headers = last ? { "Last-Event-ID": String(last) } : {}
      const answer = await send("GET", executionPath(id, "/stream?follow=true"), { signal: shown.signal, headers, accept: "text/event-stream" })
      if (answer.status === 204) return onState("ended")
      onState("live")
      if (await read(answer.body, take, onLive)) return onState("ended")
    } catch (problem) {
      if (signal.aborted) return
      if (shown.signal.aborted) continue
      if (problem instanceof Problem && [401, 403, 404].includes(problem.status)) throw problem
      if (problem.code === "too_many_streams") {
        try {
          if (await ask()) return onState("ended")
        } catch { /* tried again below */ }
      }
    } finally {
      shown.done()
    }
    onState("reconnecting")
    failures += 1
    await pause(Math.min(15000, 500 * 2 ** Math.min(failures, 5)), signal)
  }
}

// Reads Server-Sent Events; whether the end was among them.
async function read(body, take, onLive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ""
  for (;;) {
    const timer = setTimeout(() => reader.cancel(), SILENCE)
    const { done, value } = await reader.read().finally(() => clearTimeout(timer))
    if (done) return false
    rest += value
    const parts = rest.split("\n\n")
    rest = parts.pop()
    // Many that come at once are taken in parts, so that the browser can draw and answer between them.
    for (let at = 0; at < parts.length; at += PART) {
      if (at) await new Promise((resolve) => setTimeout(resolve))
      if (some(parts.slice(at, at + PART))) {
        reader.cancel()
        return true
      }
    }
  }
  function some(parts) {
    const events = []
    const live = []
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n")
      if (!data) continue
      const event = JSON.parse(data)
      if (event.sequence) events.push(event)
      else live.push(event)
    }
    if (live.length) onLive(live)
    return take(events)
  }
}
