// Elements are made by calls; texts are only ever put in as texts.

export function h(tag, props, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value)
    else if (name === "class") made.className = value
    else if (name === "data") Object.assign(made.dataset, value)
    else if (name in made && !name.startsWith("aria") && !["list", "form", "role"].includes(name)) made[name] = value
    else made.setAttribute(name, value === true ? "" : value)
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false))
  return made
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

export function announce(text) {
  document.getElementById("announce").textContent = text
}

let ids = 0
export const fresh = (name) => `${name}-${++ids}`

// Values as people read them.

export function seconds(value) {
  if (value === null || value === undefined) return "–"
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`
  if (value < 1) return `${Number((value * 1000).toPrecision(3))} ms`
  if (value < 60) return `${Number(value.toPrecision(3))} s`
  const whole = Math.round(value)
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" })
export function time(text) {
  if (!text) return "–"
  return h("time", { dateTime: text, title: text }, clock.format(new Date(text)))
}

export function json(value) {
  return typeof value === "string" ? JSON.stringify(value) : JSON.stringify(value, null, 2)
}

export function short(value, most = 80) {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? ""
  return text.length > most ? text.slice(0, most) + "…" : text
}

// What a value is shown as: long ones in a box that scrolls.
export function shown(value) {
  const text = typeof value === "string" ? value : json(value)
  return h("pre", { class: "value", tabIndex: text.length > 400 ? 0 : undefined }, text)
}

export const MARKS = { completed: "✓", failed: "✕", running: "▶", queued: "…", suspended: "?", waiting: "?", cancelled: "–", cut: "–", interrupted: "!", broken: "✕", stale: "!", ok: "✓" }
export function badge(state) {
  return h("span", { class: `badge ${state}` }, h("span", { "aria-hidden": "true" }, MARKS[state] || "·"), ` ${state}`)
}

// A list of which only the rows in sight exist. `row(at)` makes one.
export function virtual({ count, height, row, label, role = "list", most = 460 }) {
  const inner = h("div", { class: "virtual-inner", role, "aria-label": label })
  const outer = h("div", { class: "virtual", tabIndex: 0, role: "region", "aria-label": `${label}, scrolls` }, inner)
  let total = count
  let drawn = new Map()
  const draw = (anew) => {
    inner.style.height = `${total * height}px`
    outer.style.height = `${Math.min(most, total * height + 2)}px`
    const first = Math.max(0, Math.floor(outer.scrollTop / height) - 8)
    const last = Math.min(total, Math.ceil((outer.scrollTop + (outer.clientHeight || most)) / height) + 8)
    const next = new Map()
    for (let at = first; at < last; at++) {
      let made = anew ? null : drawn.get(at)
      if (!made) {
        made = row(at)
        made.style.top = `${at * height}px`
        made.style.height = `${height}px`
        if (role === "list") {
          made.setAttribute("role", "listitem")
          made.setAttribute("aria-setsize", total)
          made.setAttribute("aria-posinset", at + 1)
        }
      }
      next.set(at, made)
    }
    const focused = [...drawn].find(([, one]) => one.contains(document.activeElement))
    for (const [at, one] of drawn) if (next.get(at) !== one) one.remove()
    let before = null
    for (const one of [...next.values()].reverse()) {
      if (one.parentNode !== inner || one.nextSibling !== before) inner.insertBefore(one, before)
      before = one
    }
    if (anew && focused && next.has(focused[0])) next.get(focused[0]).querySelector("button")?.focus({ preventScroll: true })
    drawn = next
  }
  let asked = false
  outer.addEventListener("scroll", () => {
    if (asked) return
    asked = true
    requestAnimationFrame(() => { asked = false; draw(false) })
  }, { passive: true })
  new ResizeObserver(() => draw(false)).observe(outer)
  draw(true)
  return { element: outer, update(length, anew = true) { total = length; draw(anew) } }
}

export function tabs(names, current, link) {
  return h("nav", { class: "tabs", "aria-label": "Views" },
    Object.entries(names).map(([name, text]) => h("a", { href: link(name), "aria-current": name === current ? "page" : undefined }, text)))
}
