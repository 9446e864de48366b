// The drawing that the server makes, copied element by element: only shapes and texts come into the page.

import { h, MARKS } from "./dom.js"

const NS = "http://www.w3.org/2000/svg"
const SHAPES = new Set(["svg", "g", "path", "rect", "text", "tspan", "title"])
const PLAIN = new Set(["viewBox", "width", "height", "class", "d", "x", "y", "rx", "data-node", "data-source", "data-target", "aria-label"])

function copy(source) {
  const made = document.createElementNS(NS, source.localName)
  for (const { name, value } of source.attributes) if (PLAIN.has(name)) made.setAttribute(name, value)
  for (const child of source.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) made.append(child.data)
    else if (child.nodeType === Node.ELEMENT_NODE && SHAPES.has(child.localName)) made.append(copy(child))
  }
  return made
}

export function graph(text, onSelect) {
  const parsed = new DOMParser().parseFromString(text.replace(/<style>[^<]*<.style>/, ""), "image/svg+xml").documentElement
  if (parsed.localName !== "svg") return { element: h("p", { class: "empty" }, "The drawing cannot be read."), show() {}, select() {} }
  const svg = copy(parsed)
  svg.setAttribute("role", "group")
  const [width, height] = [Number(svg.getAttribute("width")), Number(svg.getAttribute("height"))]
  const nodes = [...svg.querySelectorAll("[data-node]")]
  const edges = [...svg.querySelectorAll("[data-source]")]
  for (const edge of edges) edge.setAttribute("aria-hidden", "true")
  let scale = 1
  const frame = h("div", { class: "graph-frame" })
  const level = h("span", { class: "zoom-level" })
  const zoom = (to) => {
    const before = scale
    scale = Math.min(3, Math.max(0.15, to))
    const middle = [frame.scrollLeft + frame.clientWidth / 2, frame.scrollTop + frame.clientHeight / 2]
    svg.setAttribute("width", width * scale)
    svg.setAttribute("height", height * scale)
    frame.scrollLeft = middle[0] * scale / before - frame.clientWidth / 2
    frame.scrollTop = middle[1] * scale / before - frame.clientHeight / 2
    level.textContent = `${Math.round(scale * 100)} %`
  }
  const fit = () => zoom(Math.min(1, (frame.clientWidth - 4) / width, Math.max(0.45, (innerHeight * 0.72) / height)))
  const button = (label, sign, onclick) => h("button", { type: "button", class: "quiet", "aria-label": label, title: label, onclick }, sign)
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return
    event.preventDefault()
    zoom(scale * (event.deltaY < 0 ? 1.1 : 1 / 1.1))
  }, { passive: false })

  // One stop for the tab key; arrows go from node to node.
  const reach = (node) => {
    for (const one of nodes) one.setAttribute("tabindex", one === node ? "0" : "-1")
  }
  nodes.forEach((node, place) => {
    const name = node.dataset.node
    node.setAttribute("role", "button")
    node.setAttribute("aria-label", node.querySelector("title")?.textContent || name)
    node.addEventListener("click", () => { reach(node); onSelect(name) })
    node.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key]
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault()
        onSelect(name)
      } else if (step && nodes[place + step]) {
        event.preventDefault()
        reach(nodes[place + step])
        nodes[place + step].focus()
      }
    })
  })
  if (nodes.length) reach(nodes[0])
  frame.append(svg)
  frame.tabIndex = 0
  frame.setAttribute("role", "region")
  frame.setAttribute("aria-label", `${parsed.getAttribute("aria-label") || "Drawing"}; arrow keys go from node to node`)
  requestAnimationFrame(fit)

  const labels = new Map(nodes.map((node) => [node, (node.querySelector("title")?.textContent || node.dataset.node)]))
  return {
    element: h("div", { class: "graph" },
      h("div", { class: "graph-tools" }, button("Smaller", "−", () => zoom(scale / 1.25)), level, button("Larger", "+", () => zoom(scale * 1.25)), button("Fit to the window", "Fit", fit)),
      frame),
    show(stateOf, taken) {
      for (const node of nodes) {
        const state = stateOf(node.dataset.node)
        if (node.dataset.state === state) continue
        node.dataset.state = state
        node.setAttribute("class", [...node.classList].filter((name) => ["node", "entry", "missing", "selected"].includes(name)).concat(state).join(" "))
        const mark = node.querySelector(".mark")
        if (mark) mark.textContent = MARKS[state] ? `${MARKS[state]} ` : ""
        node.setAttribute("aria-label", `${labels.get(node)}, ${state}`)
      }
      for (const edge of edges) edge.classList.toggle("taken", taken.has(`${edge.dataset.source}\n${edge.dataset.target}`))
    },
    select(name) {
      for (const node of nodes) {
        node.classList.toggle("selected", node.dataset.node === name)
        if (node.dataset.node === name) reach(node)
      }
    },
  }
}
