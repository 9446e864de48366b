// What is shown to somebody whom the server does not know.

import { signedIn, signIn } from "./api.js"
import { fresh, h } from "./dom.js"

export function signInForm(problem, again) {
  const kind = h("select", { id: fresh("kind") }, h("option", { value: "key" }, "API key (X-API-Key)"), h("option", { value: "bearer" }, "Token (Authorization: Bearer)"))
  const secret = h("input", { id: fresh("secret"), type: "password", autocomplete: "off", required: true })
  const tried = signedIn()
  document.title = "Sign in · Workflows"
  queueMicrotask(() => secret.focus())
  return h("form", { class: "panel sign-in", onsubmit: (event) => {
    event.preventDefault()
    signIn({ kind: kind.value, secret: secret.value.trim() })
    again()
  } }, h("h1", {}, "Who are you?"), h("p", {}, "The workflows are for those who are known here. Give your API key or token, or sign in to the application that serves this page and load it again."),
    h("div", { class: "field" }, h("label", { htmlFor: kind.id }, "Kind"), kind),
    h("div", { class: "field" }, h("label", { htmlFor: secret.id }, "Key or token"), secret, h("span", { class: "hint" }, "It is kept until this tab is closed, and sent to this server only.")),
    tried ? h("p", { class: "problem", role: "alert" }, "This key or token was not accepted.") : null,
    h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Sign in"), tried ? h("button", { type: "button", onclick: () => { signIn(null); again() } }, "Without a key") : null),
    problem.requestId ? h("p", { class: "hint" }, `Request ${problem.requestId}`) : null)
}
