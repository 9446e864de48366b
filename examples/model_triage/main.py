"""Mails to a shop: a model sorts and answers them, tools look things up, a person approves refunds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext

HERE = Path(__file__).parent
PROVIDERS = {"openai": {"key": "OPENAI_API_KEY", "model": "gpt-4.1-mini", "rate": "100/m"}}


def make_app(providers: Mapping[str, Any] = PROVIDERS, **settings: Any) -> AgentMapApp:
    config = AgentMapConfig(csv_path=HERE / "workflows", tools_path=HERE / "tools", providers=providers, **settings)
    keys = {name: os.environ[name] for name in ("OPENAI_API_KEY",) if name in os.environ}
    return AgentMapApp(config=config, context=AgentMapContext(secrets=keys))


app = make_app()
