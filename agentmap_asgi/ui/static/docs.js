// The operations, from the OpenAPI document of this service: what they take and answer, models, and a way to try them.

import { base, get, Problem, raw, signedIn, signedInBy, signIn } from "./api.js"
import { announce, fill, fresh, h, json, seconds } from "./dom.js"
import { signInForm } from "./signin.js"
import "./theme.js"

const main = document.getElementById("main")
const METHODS = ["get", "post", "put", "patch", "delete"]
let described

const nameOf = (reference) => reference.split("/").at(-1)
const resolve = (schema) => (schema?.$ref ? described.components.schemas[nameOf(schema.$ref)] || {} : schema || {})

// A description, whose `words of code` are shown as such.
const prose = (text = "") => text.split(/`([^`]+)`/).map((part, at) => (at % 2 ? h("code", {}, part) : part))

// A type in words; models are links.
function typeOf(schema) {
  if (!schema) return "anything"
  if (schema.$ref) return h("a", { href: `#/model/${nameOf(schema.$ref)}` }, nameOf(schema.$ref))
  const several = schema.anyOf || schema.oneOf
  if (several) return several.flatMap((one, at) => [at ? " or " : "", typeOf(one)])
  if (schema.enum) return schema.enum.map((one) => json(one)).join(" | ")
  if (schema.const !== undefined) return json(schema.const)
  if (schema.type === "array") return ["list of ", typeOf(schema.items)]
  if (Array.isArray(schema.type)) return schema.type.join(" or ")
  return (schema.type || "anything") + (schema.format ? ` (${schema.format})` : "")
}

// A value that fits, so far as simple schemas go.
function example(schema, depth = 0) {
  schema = resolve(schema)
  if (schema.const !== undefined) return schema.const
  if (schema.default !== undefined && schema.default !== null) return schema.default
  if (schema.examples?.length) return schema.examples[0]
  if (schema.enum) return schema.enum[0]
  const several = (schema.anyOf || schema.oneOf)?.filter((one) => one.type !== "null")
  if (several?.length) return example(several[0], depth)
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type
  if (type === "object" || schema.properties) {
    const needed = new Set(schema.required || [])
    const names = Object.keys(schema.properties || {})
    const shown = needed.size ? names.filter((name) => needed.has(name)) : names
    return depth > 3 ? {} : Object.fromEntries(shown.map((name) => [name, example(schema.properties[name], depth + 1)]))
  }
  return { array: [], integer: schema.minimum ?? 1, number: schema.minimum ?? 1, boolean: true, string: "text" }[type] ?? "text"
}

function properties(schema) {
  const whole = resolve(schema)
  const needed = new Set(whole.required || [])
  const rows = Object.entries(whole.properties || {})
  if (!rows.length) return h("p", { class: "hint" }, "Any fields.")
  return h("div", { class: "table-frame", tabIndex: 0, role: "region", "aria-label": "Fields" }, h("table", {}, h("thead", {}, h("tr", {}, ["Field", "Type", "Meaning"].map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", {}, rows.map(([name, part]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, name), needed.has(name) ? h("span", { class: "required" }, " required") : null),
      h("td", {}, typeOf(part)), h("td", {}, prose(part.description)))))))
}

function operations() {
  const found = []
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const method of METHODS) if (methods[method]) found.push({ path, method, ...methods[method] })
  }
  return found
}

const sectionOf = (one) => (one.tags?.[0] ? one.tags[0] : ["executions", "resume"].includes(one.path.split("/")[1]) ? "executions" : one.path.startsWith("/execute") ? "running" : one.path.includes("{") ? "one workflow" : "service")

function tryOut(one) {
  const inputs = (one.parameters || []).map((parameter) => {
    const id = fresh("parameter")
    const choices = parameter.schema?.enum
    const input = choices ? h("select", { id }, h("option", { value: "" }, "–"), choices.map((value) => h("option", { value }, value)))
      : h("input", { id, type: "text", required: parameter.required, placeholder: parameter.schema?.type || "" })
    return { parameter, input, element: h("div", { class: "field" }, h("label", { htmlFor: id }, parameter.name, h("span", { class: "required" }, ` ${parameter.in}${parameter.required ? ", required" : ""}`)), input, h("span", { class: "hint" }, prose(parameter.description))) }
  })
  const kinds = Object.keys(one.requestBody?.content || {}).sort((a) => (a === "application/json" ? -1 : 1))
  const kind = kinds.length > 1 ? h("select", { id: fresh("kind") }, kinds.map((value) => h("option", { value }, value))) : null
  const written = kinds.includes("application/json") ? json(example(one.requestBody.content["application/json"].schema)) : ""
  const body = kinds.length ? h("textarea", { id: fresh("body"), rows: 5, spellcheck: false, value: written }) : null
  const out = h("div", { "aria-live": "polite" })
  const line = h("pre", { class: "value", tabIndex: 0 })
  const address = () => {
    let path = one.path
    const asked = new URLSearchParams()
    const headers = {}
    for (const { parameter, input } of inputs) {
      if (!input.value) continue
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, input.value.split("/").map(encodeURIComponent).join("/"))
      else if (parameter.in === "query") asked.append(parameter.name, input.value)
      else headers[parameter.name] = input.value
    }
    return { url: `${path.slice(1)}${asked.size ? `?${asked}` : ""}`, headers }
  }
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`
  const curl = () => {
    const { url, headers } = address()
    const type = kind?.value || kinds[0]
    const words = ["curl", ...(one.method === "get" ? [] : ["-X", one.method.toUpperCase()]), quoted(new URL(url.replace(/[{}]/g, ""), base).href), ...(signedIn() ? ["-H", quoted(`${signedInBy()} …`)] : []),
      ...Object.entries(headers).flatMap(([name, value]) => ["-H", quoted(`${name}: ${value}`)]), ...(body?.value ? ["-H", quoted(`Content-Type: ${type}`), "--data-binary", quoted(body.value)] : [])]
    line.textContent = words.join(" ")
  }
  const send = async (event) => {
    event.preventDefault()
    const { url, headers } = address()
    const begun = performance.now()
    const controller = new AbortController()
    const stop = setTimeout(() => controller.abort(), 60_000)
    let status
    let text
    try {
      const type = kind?.value || kinds[0]
      const content = body?.value && type !== "application/json" ? body.value : undefined
      const answer = await raw(one.method.toUpperCase(), url, { headers: { ...headers, ...(type ? { "Content-Type": type } : {}) }, accept: "*/*", signal: controller.signal, content, body: body?.value && content === undefined ? JSON.parse(body.value) : undefined })
      status = `${answer.status} ${answer.headers.get("content-type") || ""}`
      text = await answer.text()
    } catch (error) {
      status = error instanceof Problem ? `${error.status || ""} ${error.code}` : error instanceof SyntaxError ? "The body is not JSON" : "Stopped after a minute"
      text = error instanceof Problem ? json(error.document ?? { detail: error.message }) : error.message
    } finally {
      clearTimeout(stop)
    }
    try { text = JSON.stringify(JSON.parse(text), null, 2) } catch { /* a text */ }
    fill(out, h("p", { class: "facts" }, h("strong", {}, status), h("span", {}, seconds((performance.now() - begun) / 1000))), h("pre", { class: "value", tabIndex: 0 }, text.slice(0, 200_000)))
    announce(`Answered: ${status}`)
  }
  const form = h("form", { class: "panel", "aria-label": "Try it", onsubmit: send, oninput: curl, onchange: curl }, h("h3", {}, "Try it"), inputs.map(({ element }) => element),
    kind ? h("div", { class: "field" }, h("label", { htmlFor: kind.id }, "Content type"), kind) : null,
    body ? h("div", { class: "field" }, h("label", { htmlFor: body.id }, "Body"), body) : null, line,
    one.method === "get" ? null : h("p", { class: "hint" }, "This really does it, with your own rights."), h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Send")), out)
  curl()
  return form
}

const answers = (one, fits) => h("dl", {}, Object.entries(one.responses).filter(([status]) => fits(Number(status))).map(([status, { description, content }]) => [h("dt", {}, `${status} `, prose(description)),
  h("dd", {}, content ? Object.entries(content).map(([kind, { schema }]) => h("div", {}, h("code", {}, kind), " ", kind.includes("json") ? typeOf(schema) : null)) : h("span", { class: "hint" }, "no content"))]))

function operationView(one) {
  const bodies = Object.entries(one.requestBody?.content || {})
  return [h("p", { class: "crumb" }, h("a", { href: "#/" }, "Operations"), ` / ${sectionOf(one)}`),
    h("h1", {}, one.summary || one.operationId), h("p", { class: "address" }, h("span", { class: `method ${one.method}` }, one.method.toUpperCase()), " ", h("code", {}, one.path)), one.description ? h("p", {}, prose(one.description)) : null,
    one.parameters?.length ? [h("h2", {}, "Parameters"), h("div", { class: "table-frame", tabIndex: 0, role: "region", "aria-label": "Parameters" }, h("table", {}, h("thead", {}, h("tr", {}, ["Name", "In", "Type", "Meaning"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, one.parameters.map((part) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, part.name), part.required ? h("span", { class: "required" }, " required") : null), h("td", {}, part.in), h("td", {}, typeOf(part.schema)), h("td", {}, prose(part.description)))))))] : null,
    bodies.map(([kind, { schema }]) => [h("h2", {}, "Body ", h("code", {}, kind)), schema?.type === "string" ? h("p", { class: "hint" }, "A file.") : [schema?.$ref ? h("p", {}, typeOf(schema)) : null, properties(schema)]]),
    h("h2", {}, "Answers"), answers(one, (status) => status < 400), h("details", {}, h("summary", {}, "Refusals"), answers(one, (status) => status >= 400)),
    tryOut(one)]
}

function modelView(name) {
  const schema = described.components.schemas[name]
  if (!schema) return h("div", { class: "empty" }, h("h1", {}, "There is no such model"))
  return [h("p", { class: "crumb" }, h("a", { href: "#/" }, "Operations"), " / models"), h("h1", {}, name), schema.description ? h("p", {}, prose(schema.description)) : null, properties(schema),
    h("details", {}, h("summary", {}, "JSON Schema"), h("pre", { class: "value", tabIndex: 0 }, json(schema)))]
}

const operationLink = (one) => `#/operation/${encodeURIComponent(one.operationId)}`

function overview(all) {
  return [h("h1", {}, described.info.title), h("p", { class: "facts" }, `version ${described.info.version}`, h("a", { href: new URL("openapi.json", base).href }, "openapi.json"), h("span", {}, `${all.length} operations`)),
    h("p", {}, "Every operation answers JSON; what is refused is a problem document with a stable code. Choose one to see what it takes, and to try it."),
    h("h2", {}, "Run a workflow"), h("ul", {}, all.filter((one) => sectionOf(one) === "workflows").map((one) => h("li", {}, h("a", { href: operationLink(one) }, one.summary), one.description ? h("span", { class: "hint" }, ` ${one.description}`) : null)))]
}

function list(all, current) {
  const sections = new Map([["workflows", []]])
  for (const one of all) sections.set(sectionOf(one), [...(sections.get(sectionOf(one)) || []), one])
  const item = (one) => h("li", {}, h("a", { href: operationLink(one), "aria-current": one === current ? "page" : undefined }, h("span", { class: `method ${one.method}` }, one.method.toUpperCase()), " ", h("span", {}, one.summary || one.path)))
  return [[...sections].filter(([, held]) => held.length).map(([name, held]) => h("details", { open: held.length < 40 }, h("summary", {}, name), h("ul", {}, held.map(item)))),
    h("details", {}, h("summary", {}, "models"), h("ul", {}, Object.keys(described.components.schemas).sort().map((name) => h("li", {}, h("a", { href: `#/model/${name}` }, name)))))]
}

async function show() {
  document.getElementById("sign-out").hidden = !signedIn()
  try {
    described ??= await get("openapi.json")
  } catch (problem) {
    if (problem.status === 401) return fill(main, signInForm(problem, show))
    return fill(main, h("div", { class: "empty", role: "alert" }, h("h1", {}, "The description cannot be read"), h("p", {}, problem.message)))
  }
  const [kind, name] = location.hash.replace(/^#\/?/, "").split("/").map((part) => { try { return decodeURIComponent(part) } catch { return part } })
  const all = operations()
  const current = kind === "operation" ? all.find((one) => one.operationId === name) : null
  document.title = `${current?.summary || (kind === "model" ? name : "Operations")} · API`
  fill(main, h("div", { class: kind ? "manual at-one" : "manual" }, h("nav", { class: "index", "aria-label": "Operations" }, list(all, current)),
    h("div", { class: "article" }, kind === "model" ? modelView(name) : current ? operationView(current) : overview(all))))
}

addEventListener("hashchange", async () => {
  if (location.hash === "#main") return
  await show()
  main.focus({ preventScroll: true })
  scrollTo(0, 0)
})
document.getElementById("sign-out").addEventListener("click", () => { signIn(null); described = undefined; show() })
show()
