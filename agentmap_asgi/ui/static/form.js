// Forms made from JSON Schemas, and the values that are in them.

import { fresh, h, json } from "./dom.js"

const MOST_DEPTH = 3

function resolved(schema, root) {
  for (let hops = 0; hops < 20 && schema && typeof schema === "object"; hops++) {
    if (typeof schema.$ref === "string" && schema.$ref.startsWith("#/")) {
      schema = schema.$ref.slice(2).split("/").reduce((part, name) => part?.[name.replace(/~1/g, "/").replace(/~0/g, "~")], root) ?? {}
    } else if (schema.anyOf || schema.oneOf) {
      const others = (schema.anyOf || schema.oneOf).filter((one) => one.type !== "null")
      if (others.length !== 1) return schema
      const { anyOf, oneOf, ...rest } = schema
      schema = { ...others[0], ...rest }
    } else return schema
  }
  return schema && typeof schema === "object" ? schema : {}
}

const kindOf = (schema) => (Array.isArray(schema.type) ? schema.type.filter((one) => one !== "null")[0] : schema.type)

// What somebody means who types into a field without a type: JSON where it is JSON, else a text.
export function meant(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function said(value) {
  if (value === null) return "nothing (null)"
  if (Array.isArray(value)) return "a list"
  return { string: "a text", number: "a number", boolean: "yes or no", object: "an object" }[typeof value]
}

class Wrong extends Error {
  constructor(message, pointer) {
    super(message)
    this.pointer = pointer
  }
}

// Each control has `element`, `read()` (undefined when left empty) and `place(pointer)` for messages.
function control(schema, root, name, { required, value, depth, pointer }) {
  schema = resolved(schema, root)
  const kind = kindOf(schema)
  if (kind === "object" && schema.properties && depth < MOST_DEPTH) return group(schema, root, name, { required, value, depth, pointer })
  const id = fresh("field")
  const start = value !== undefined ? value : schema.default
  const notes = [schema.description, ...bounds(schema)].filter(Boolean)
  const hint = h("span", { class: "hint", id: `${id}-hint` }, notes.join(" · "))
  const error = h("span", { class: "field-error", id: `${id}-error` })
  const common = { id, name, required, "aria-describedby": `${id}-hint ${id}-error` }
  let input
  let read
  const empty = (text, way) => (text.trim() === "" ? undefined : way(text))
  const choices = schema.enum || (schema.const !== undefined ? [schema.const] : null)
  if (choices) {
    input = h("select", common, !required || start === undefined ? h("option", { value: "" }, required ? "Choose…" : "–") : null,
      choices.map((one, at) => h("option", { value: String(at + 1), selected: one === start }, typeof one === "string" ? one : json(one))))
    read = () => (input.value ? choices[Number(input.value) - 1] : undefined)
  } else if (kind === "boolean" && required) {
    input = h("input", { ...common, required: false, type: "checkbox", checked: start === true })
    read = () => input.checked
  } else if (kind === "boolean") {
    input = h("select", common, [["", "–"], ["true", "yes"], ["false", "no"]].map(([one, text]) => h("option", { value: one, selected: String(start ?? "") === one }, text)))
    read = () => (input.value ? input.value === "true" : undefined)
  } else if (kind === "integer" || kind === "number") {
    input = h("input", { ...common, type: "number", step: kind === "integer" ? "1" : "any", min: schema.minimum, max: schema.maximum, value: start ?? "" })
    read = () => empty(input.value, Number)
  } else if (kind === "string") {
    const type = { email: "email", date: "date", uri: "url", password: "password" }[schema.format]
    const long = !type && (schema.maxLength === undefined || schema.maxLength > 120)
    input = long ? h("textarea", { ...common, rows: 1, value: start ?? "" }) : h("input", { ...common, type: type || "text", value: start ?? "", maxLength: schema.maxLength })
    read = () => (input.value === "" && !required ? undefined : input.value)
  } else {
    const text = start === undefined ? "" : kind || typeof start !== "string" ? json(start) : start
    input = h("textarea", { ...common, rows: kind === "array" || kind === "object" ? 3 : 1, value: text, spellcheck: false })
    const taken = h("span", { class: "taken-as", "aria-live": "polite" })
    const example = schema.examples?.[0]
    const placeholder = example !== undefined ? `for example ${kind || typeof example !== "string" ? json(example) : example}` : kind === "array" ? "[ … ]" : kind === "object" ? "{ … }" : ""
    input.placeholder = placeholder
    const note = () => { taken.textContent = input.value.trim() ? `taken as ${said(meant(input.value))}` : "" }
    if (!kind) {
      input.addEventListener("input", note)
      note()
      hint.append(" ", taken)
    }
    read = () => empty(input.value, (typed) => {
      if (!kind) return meant(typed)
      try {
        return JSON.parse(typed)
      } catch {
        throw new Wrong(`Write JSON: ${kind === "array" ? "[…]" : "{…}"}`, pointer)
      }
    })
  }
  const label = h("label", { htmlFor: id }, schema.title && !name ? schema.title : name, required ? h("span", { class: "required" }, " required") : null)
  const check = input.type === "checkbox"
  return {
    element: h("div", { class: check ? "field check" : "field" }, check ? [input, label] : [label, input], hint, error),
    read,
    focus: () => input.focus(),
    place(where, message) {
      if (where !== pointer && !where.startsWith(`${pointer}/`)) return false
      error.textContent = message
      input.setAttribute("aria-invalid", "true")
      return true
    },
    clear() {
      error.textContent = ""
      input.removeAttribute("aria-invalid")
    },
  }
}

function bounds(schema) {
  const words = []
  if (schema.minimum !== undefined) words.push(`from ${schema.minimum}`)
  if (schema.maximum !== undefined) words.push(`up to ${schema.maximum}`)
  if (schema.minLength) words.push(`at least ${schema.minLength} characters`)
  if (schema.maxLength !== undefined && schema.maxLength < 10000) words.push(`at most ${schema.maxLength} characters`)
  return words
}

function group(schema, root, name, { required, value, depth, pointer }) {
  const needed = new Set(schema.required || [])
  const fields = Object.entries(schema.properties || {}).map(([field, part]) => [field, control(part, root, field, {
    required: needed.has(field), value: value?.[field], depth: depth + 1, pointer: `${pointer}/${field.replace(/~/g, "~0").replace(/\//g, "~1")}`,
  })])
  const inside = fields.map(([, one]) => one.element)
  return {
    element: name ? h("fieldset", {}, h("legend", {}, name), schema.description ? h("p", { class: "hint" }, schema.description) : null, inside) : h("div", { class: "fields" }, inside),
    read() {
      const found = {}
      for (const [field, one] of fields) {
        const read = one.read()
        if (read !== undefined) found[field] = read
      }
      return name && !required && !Object.keys(found).length ? undefined : found
    },
    focus: () => fields[0]?.[1].focus(),
    place: (where, message) => fields.some(([, one]) => one.place(where, message)),
    clear: () => fields.forEach(([, one]) => one.clear()),
  }
}

// A form for a whole schema. `pointer` is where its value stands in what is sent; problems are shown at their fields.
export function fieldsOf(schema, { value, pointer = "", name = "" } = {}) {
  const made = control(schema || {}, schema || {}, name, { required: true, value, depth: 0, pointer })
  const summary = h("div", { class: "problem", role: "alert", hidden: true })
  return {
    element: h("div", { class: "schema-form" }, made.element, summary),
    focus: made.focus,
    read() {
      made.clear()
      summary.hidden = true
      try {
        return { value: made.read() }
      } catch (error) {
        if (!(error instanceof Wrong)) throw error
        made.place(error.pointer, error.message)
        this.fail(error)
        return null
      }
    },
    fail(problem) {
      const left = (problem.errors || []).filter((one) => !made.place(one.pointer, one.message)).map((one) => one.message)
      summary.hidden = false
      summary.replaceChildren(h("p", {}, problem.message), left.length ? h("ul", {}, left.map((one) => h("li", {}, one))) : "")
      made.element.querySelector("[aria-invalid]")?.focus()
    },
  }
}
