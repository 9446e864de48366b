"""An agent of the host."""

from __future__ import annotations

from agentmap_asgi import Call, agent


@agent(inline=True)
def greeter(call: Call) -> str:
    return f"Hello {call.inputs['name']}!"
