// What the holder of a one-time link is asked. Looking changes nothing; the answer is sent when a button is pressed.

import { get, post } from "./api.js"
import { announce, fill, h, time } from "./dom.js"
import { waitForm } from "./waits.js"
import "./theme.js"

const main = document.getElementById("main")
const path = `resume/link/${location.pathname.split("/").at(-1)}`

function over(title, text) {
  fill(main, h("h1", {}, title), h("p", {}, text))
  announce(title)
}

function failed(problem) {
  if (problem.code === "link_used") over("Nothing is asked any more", "This has been answered, or is asked no more.")
  else if (problem.code === "link_expired") over("This link has expired", "Ask whoever sent it for a new one.")
  else if (problem.code === "link_unknown") over("This link is not known", "Look whether the whole of it was copied.")
  else over("This cannot be shown now", problem.message)
}

async function deliver(body) {
  try {
    return await post(path, body)
  } catch (problem) {
    if (problem.status === 404 || problem.status === 410) failed(problem)
    throw problem
  }
}

try {
  const asked = await get(path)
  const form = waitForm(asked.execution_id, asked.wait, () => over("Thank you", "Your answer is kept. This page can be closed."), deliver)
  const facts = h("p", { class: "facts" }, asked.assignee ? h("span", {}, `You answer as ${asked.assignee}. `) : null, h("span", {}, "This link is good until ", time(asked.expires_at), ", for one answer."))
  fill(main, h("h1", {}, asked.graph_name), form, facts)
} catch (problem) {
  failed(problem)
}
