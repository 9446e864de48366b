// Light, dark, or as the system says; one choice for all pages.

const THEMES = ["system", "light", "dark"]
let theme = "system"
try { theme = localStorage.getItem("agentmap:theme") || theme } catch { /* not kept */ }
if (!THEMES.includes(theme)) theme = "system"
const button = document.getElementById("theme")

function dress() {
  document.documentElement.dataset.theme = theme
  button.textContent = { system: "◐", light: "☀", dark: "☾" }[theme]
  button.setAttribute("aria-label", `Colours: ${theme}. Change`)
  button.title = `Colours: ${theme}`
}

button.addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]
  try { localStorage.setItem("agentmap:theme", theme) } catch { /* not kept */ }
  dress()
})
dress()

const main = document.getElementById("main")
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus() })
