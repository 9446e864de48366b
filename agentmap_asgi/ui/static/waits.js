// What waits for a person, and the forms in which people answer.

import { executionPath, post } from "./api.js"
import { fill, fresh, h, shown, time } from "./dom.js"
import { fieldsOf } from "./form.js"

const ASKS = { approval: "asks for approval", choice: "asks to choose", text_input: "asks for a text", edit: "asks to edit", form: "asks to fill in a form", input: "asks for input", data: "waits for data" }

// One open wait as a form. `answered(document)` is called when the answer is kept; `deliver(body)` sends it.
export function waitForm(id, wait, answered, deliver = (body) => post(executionPath(id, "/resume"), { ...body, token: wait.path })) {
  const way = WAYS[wait.type] || WAYS.data
  const problem = h("div", { class: "problem", role: "alert", hidden: true })
  const buttons = h("div", { class: "actions" })
  const made = way(wait)
  const send = async (action, button) => {
    const read = made.read()
    if (!read) return
    for (const one of buttons.children) one.disabled = true
    problem.hidden = true
    try {
      const data = read.value
      answered(await deliver({ action, ...(data === undefined ? {} : { data }) }))
      dispatchEvent(new Event("answered"))
    } catch (error) {
      for (const one of buttons.children) one.disabled = false
      if (made.fail && error.status === 422) return made.fail(error)
      problem.hidden = false
      fill(problem, h("p", {}, error.message))
    }
  }
  const actions = wait.type === "approval" ? [["approve", "Approve", "primary"], ["reject", "Reject", ""]] : [["answer", "Send answer", "primary"]]
  fill(buttons, actions.map(([action, text, style], at) => h("button", { type: at ? "button" : "submit", class: style, onclick: at ? () => send(action) : undefined }, text)))
  const title = fresh("wait")
  return h("form", { class: "panel wait", "aria-labelledby": title, data: { wait: wait.path }, onsubmit: (event) => { event.preventDefault(); send(actions[0][0]) } },
    h("h2", { id: title }, `${wait.node} ${ASKS[wait.type] || ASKS.data}`),
    wait.prompt ? h("p", { class: "prompt" }, wait.prompt) : null,
    h("p", { class: "facts" }, wait.assignees?.length ? h("span", {}, `for ${wait.assignees.join(", ")}`) : null, wait.expires_at ? h("span", {}, "until ", time(wait.expires_at)) : null),
    made.element, problem, buttons)
}

function textField(label, value, rows) {
  const id = fresh("answer")
  const input = h("textarea", { id, rows, value })
  return { element: h("div", { class: "field" }, h("label", { htmlFor: id }, label), input), input }
}

const WAYS = {
  approval() {
    const { element, input } = textField("Comment (optional)", "", 2)
    return { element, read: () => ({ value: input.value.trim() ? { comment: input.value } : undefined }) }
  },
  choice(wait) {
    const name = fresh("choice")
    const inputs = wait.options.map((one, at) => h("input", { type: "radio", name, id: `${name}-${at}`, value: one, required: true }))
    return {
      element: h("fieldset", {}, h("legend", {}, "Choose one"), inputs.map((one, at) => h("div", { class: "field check" }, one, h("label", { htmlFor: one.id }, wait.options[at])))),
      read: () => ({ value: inputs.find((one) => one.checked)?.value }),
    }
  },
  text_input() {
    const { element, input } = textField("Answer", "", 3)
    return { element, read: () => ({ value: input.value }) }
  },
  edit(wait) {
    if (wait.form) return WAYS.form(wait)
    if (wait.value !== null && typeof wait.value !== "string") return jsonWay(wait.value)
    const { element, input } = textField("Edit", wait.value ?? "", Math.min(16, 3 + String(wait.value ?? "").length / 80))
    return { element, read: () => ({ value: input.value }) }
  },
  form(wait) {
    const form = fieldsOf(wait.form, { value: wait.value ?? undefined, pointer: "/data", name: wait.form?.type === "object" || wait.form?.properties ? "" : "Answer" })
    return { element: form.element, read: () => form.read(), fail: (problem) => form.fail(problem) }
  },
  input(wait) {
    if (wait.form) return WAYS.form(wait)
    const form = fieldsOf({}, { pointer: "/data", name: "Answer", value: wait.value ?? undefined })
    return { element: form.element, read: () => form.read(), fail: (problem) => form.fail(problem) }
  },
  data(wait) {
    if (wait.form) return WAYS.form(wait)
    return jsonWay(null, wait.value)
  },
}

function jsonWay(value, about) {
  const form = fieldsOf({ description: "JSON, or a text" }, { pointer: "/data", name: "Answer", value: value ?? undefined })
  return { element: h("div", {}, about ? shown(about) : null, form.element), read: () => { const read = form.read(); return read && { value: read.value ?? null } }, fail: (problem) => form.fail(problem) }
}
