"""The agent `http`. What it does is in `web_call`, which is imported when a row names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import NotAllowed
from ..workflows.diagnostics import Finding
from ..workflows.model import Node
from .basic import prompt_mentions
from .options import is_secret
from .registry import Agent, Call
from .web_options import BODY, FORM, KEPT, OPTIONS, REPEATABLE

if TYPE_CHECKING:
    from .web_guard import Rules


def _configured(config: AgentMapConfig, context: AgentMapContext) -> Agent:
    """The agent with the allow-list of a service; without one it is off."""
    if not config.http_allow:
        return replace(AGENT, check=_off)
    from .web_guard import Rules

    rules = Rules(config.http_allow, config.http_private)
    runner = _Runner(config, rules)
    return replace(AGENT, check=partial(_check, rules), run=runner.run)


class _Runner:
    """Calls what `web_call` has, made when it is first used."""

    def __init__(self, config: AgentMapConfig, rules: Rules) -> None:
        self._config = config
        self._rules = rules
        self._web: Any = None

    async def run(self, call: Call) -> Any:
        if self._web is None:
            from .web_call import Web

            config = self._config
            self._web = Web(
                self._rules, timeout=config.http_timeout, most=config.http_max_bytes, authority=config.http_ca_path
            )
        return await self._web.run(call)


async def _unset(call: Call) -> Any:
    raise NotAllowed("No host is allowed for http (http_allow)")


def _off(node: Node) -> Iterator[Finding]:
    message = f"{node.name!r} calls another host, and none is allowed"
    yield Finding(
        "AM-A009", "error", message, "Name the hosts in the setting http_allow.", "AgentType", node.agent_type
    )


def _check(rules: Rules, node: Node) -> Iterator[Finding]:
    """A client that is not installed; a URL that no row may name; headers that are not a row's to say."""
    from .web_guard import place_of

    if find_spec("httpx2") is None:
        message = f"{node.name!r} needs the HTTP client"
        hint = "pip install 'agentmap-asgi[http]'"
        yield Finding("AM-A009", "error", message, hint, "AgentType", node.agent_type)
    else:
        from . import web_call  # noqa: F401  # from now on it is there, so that no event loop waits for the disk
    written = node.options.get("url") or node.prompt
    column = "Context" if node.options.get("url") else "Prompt"
    if not str(written).strip():
        hint = 'Write {"url": "https://api.example.com/orders/{id}"}.'
        yield Finding("AM-A004", "error", f"{node.name!r} has no url", hint, "Context")
    elif not is_secret(written) and "{" not in str(written):
        try:
            rules.check(place_of(str(written)))
        except NotAllowed as exc:
            hint = "http_allow in the settings names the hosts that may be called."
            yield Finding("AM-A004", "error", exc.message, hint, column, str(written))
    headers = node.options.get("headers")
    for name in headers if isinstance(headers, dict) else ():
        if name.strip().casefold() in KEPT:
            message = f"The header {name} is not for {node.name!r} to say"
            yield Finding("AM-A004", "error", message, "Remove it; it follows from the rest.", "Context", name)
    method = str(node.options.get("method") or "GET").strip().upper()
    if method in ("GET", "HEAD") and any(key in node.options for key in (BODY.name, *BODY.aliases, FORM.name)):
        message = f"{node.name!r} has a body, and its method is {method}"
        yield Finding("AM-A004", "warning", message, 'Write {"method": "POST"}.', "Context", "method")


def repeatable(node: Node) -> bool:
    return str(node.options.get("method") or "GET").strip().upper() in REPEATABLE


AGENT: Final = Agent(
    name="http",
    summary="Calls an allowed host.",
    inputs="fill the options, and so does the state",
    output="an object: status, headers, body; or the body alone",
    options=OPTIONS,
    mode="async",
    run=_unset,
    configure=_configured,
    repeatable=repeatable,
    mentions=prompt_mentions,
)
