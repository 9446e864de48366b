// The page: one address a view (behind the #), so that each can be linked to, and one view at a time.

import { get, Problem, signedIn, signIn } from "./api.js"
import { announce, fill, h } from "./dom.js"
import { signInForm } from "./signin.js"
import "./theme.js"
import { workflowPage, workflowsPage } from "./workflows.js"

const main = document.getElementById("main")
// A view's files are asked for together, not one after the other as each names the next.
const load = (...names) => Promise.all(names.map((name) => import(`./${name}.js`))).then(([first]) => first)
const PAGES = {
  workflows: { title: "Workflows", show: async () => workflowsPage },
  workflow: { title: "Workflow", show: async () => workflowPage },
  executions: { title: "Executions", show: async () => (await load("executions", "waits")).executionsPage },
  waiting: { title: "Waiting", show: async () => (await load("executions", "waits")).waitingPage },
  execution: { title: "Execution", show: async () => (await load("execution", "model", "timeline", "waits")).executionPage },
}
let leave = new AbortController()

export function go(hash) {
  location.hash = hash
}

function replace(hash) {
  history.replaceState(null, "", hash)
}

async function show() {
  leave.abort()
  leave = new AbortController()
  const { signal } = leave
  const [path, asked = ""] = location.hash.replace(/^#\/?/, "").split("?")
  const [name = "workflows", ...parts] = path.split("/").filter(Boolean).map((part) => { try { return decodeURIComponent(part) } catch { return part } })
  const page = Object.hasOwn(PAGES, name) ? PAGES[name] : null
  for (const link of document.querySelectorAll("nav[aria-label=Main] a")) {
    const own = link.hash.slice(2) === (name.startsWith("workflow") ? "workflows" : name === "execution" ? "executions" : name)
    if (own) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
  document.getElementById("sign-out").hidden = !signedIn()
  if (!page) {
    document.documentElement.dataset.shown = location.hash
    return fill(main, h("div", { class: "empty" }, h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/workflows" }, "Go to the workflows"))))
  }
  document.title = `${page.title} · Workflows`
  const before = main.firstChild
  const slow = setTimeout(() => { if (main.firstChild === before) fill(main, h("p", { class: "loading" }, "Loading…")) }, 250)
  try {
    const view = await page.show()
    if (signal.aborted) return
    await view({ main, signal, parts: parts.map((part, at) => (name === "execution" && at === 1 && part === "graph" ? "" : part)), asked: new URLSearchParams(asked), go, replace })
    clearTimeout(slow)
    // With the next frame, which lays the page out anyhow.
    requestAnimationFrame(() => {
      if (signal.aborted || !moved || main.contains(document.activeElement)) return
      main.focus({ preventScroll: true })
      scrollTo(0, 0)
      announce(document.title)
    })
    countWaiting()
  } catch (problem) {
    clearTimeout(slow)
    if (signal.aborted || problem.name === "AbortError") return
    failed(problem)
  }
  if (!signal.aborted) document.documentElement.dataset.shown = location.hash
}

function failed(problem) {
  if (!(problem instanceof Problem)) console.error(problem)
  if (problem.status === 401) return fill(main, signInForm(problem, show))
  const words = { 403: "You are not allowed to see this.", 404: "It is not there, or not for you." }
  const again = h("button", { type: "button", class: "primary", onclick: () => show() }, "Try again")
  fill(main, h("div", { class: "empty", role: "alert" }, h("h1", {}, words[problem.status] || "That did not work"), h("p", {}, problem.message),
    problem.requestId ? h("p", { class: "hint" }, `Request ${problem.requestId}`) : null, h("div", { class: "actions" }, again, h("a", { class: "button", href: "#/workflows" }, "Workflows"))))
}

async function countWaiting() {
  const badge = document.getElementById("waiting-count")
  try {
    const found = await get("executions?waiting_for=me&limit=50")
    const count = found.executions.reduce((sum, one) => sum + (one.waiting?.length || 0), 0)
    badge.hidden = !count
    badge.textContent = found.next_cursor ? `${count}+` : String(count)
    badge.setAttribute("aria-label", `, ${badge.textContent}`)
  } catch {
    badge.hidden = true
  }
}

document.getElementById("sign-out").addEventListener("click", () => { signIn(null); show() })

let moved = false
addEventListener("hashchange", () => { moved = true; show() })
addEventListener("answered", countWaiting)
setInterval(() => { if (!document.hidden && !main.querySelector(".sign-in")) countWaiting() }, 15000)
show()
