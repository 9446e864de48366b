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

// The children of an element: those that stay are not touched, so they keep what the visitor does with them.
export function arrange(element, children) {
  const staying = new Set(children)
  for (const one of [...element.children]) if (!staying.has(one)) one.remove()
  let before = null
  for (const one of [...children].reverse()) {
    if (one.parentNode !== element || one.nextSibling !== before) element.insertBefore(one, before)
    before = one
  }
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

let clock // it takes a while to make: when there is nothing else to do, or a time is shown
const wound = () => (clock ??= new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" }))
window.requestIdleCallback?.(() => wound().format(0))
export function time(text) {
  if (!text) return "–"
  return h("time", { dateTime: text, title: text }, wound().format(new Date(text)))
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

// A list of which only the rows in sight exist. `row(at)` makes one, `key(at)` says when it has to be made anew.
// Nothing is measured while drawing: the browser tells where it is scrolled to and how high it is.
export function virtual({ height, row, key, label, role = "list", most = 460 }) {
  const inner = h("div", { class: "virtual-inner", role, "aria-label": label })
  const outer = h("div", { class: "virtual", tabIndex: 0, role: "region", "aria-label": `${label}, scrolls` }, inner)
  let total = 0
  let top = 0
  let sight = most
  let atEnd = true
  let drawn = new Map()
  const draw = () => {
    const first = Math.max(0, Math.min(Math.floor(top / height), total - 1) - 8)
    const last = Math.min(total, Math.ceil((top + sight) / height) + 8)
    const next = new Map()
    for (let at = first; at < last; at++) {
      const is = key(at)
      let made = drawn.get(at)
      if (made?.is !== is) {
        made = { is, element: row(at) }
        made.element.style.top = `${at * height}px`
        made.element.style.height = `${height}px`
        if (role === "list") {
          made.element.setAttribute("role", "listitem")
          made.element.setAttribute("aria-setsize", -1) // the list itself says how many there are just now
          made.element.setAttribute("aria-posinset", at + 1)
        }
      }
      next.set(at, made)
    }
    const focused = [...drawn].find(([, one]) => one.element.contains(document.activeElement))?.[0]
    arrange(inner, [...next.values()].map((one) => one.element))
    if (focused !== undefined && next.get(focused) !== drawn.get(focused)) next.get(focused)?.element.querySelector("button")?.focus({ preventScroll: true })
    drawn = next
  }
  let asked = false
  outer.addEventListener("scroll", () => {
    top = outer.scrollTop
    atEnd = top + sight >= total * height - 40
    if (asked) return
    asked = true
    requestAnimationFrame(() => { asked = false; draw() })
  }, { passive: true })
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.height) sight = contentRect.height
    draw()
  }).observe(outer)
  return {
    element: outer,
    // With `stay`, what stood at its end before stands there again.
    update(length, stay = false) {
      const follows = stay && atEnd
      if (length !== total) {
        total = length
        inner.style.height = `${total * height}px`
        outer.style.height = `${Math.min(most, total * height + 2)}px`
        inner.setAttribute("aria-label", `${label}, ${total}`)
      }
      if (follows) top = Math.max(0, total * height - sight)
      draw()
      if (follows) outer.scrollTop = top
      else atEnd = top + sight >= total * height - 40
    },
  }
}

export function tabs(names, current, link) {
  return h("nav", { class: "tabs", "aria-label": "Views" },
    Object.entries(names).map(([name, text]) => h("a", { href: link(name), "aria-current": name === current ? "page" : undefined }, text)))
}
