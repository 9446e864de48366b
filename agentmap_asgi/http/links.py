"""Links of an execution: the operations that make sense for it now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from ..stores.store import FINISHED
from .exchange import Exchange
from .owners import told_id

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*", re.ASCII)


def execution_link(exchange: Exchange, execution_id: str) -> str:
    """Where an execution is described."""
    execution_id = told_id(exchange, execution_id)
    ours = execution_id.isascii() and execution_id.replace("-", "").isalnum()
    if not ours and _PLAIN.fullmatch(execution_id) is None:
        execution_id = quote(execution_id, safe="", errors="replace")
    return exchange.link("/executions/" + execution_id)


def execution_links(exchange: Exchange, document: Mapping[str, Any], workflow: str) -> dict[str, str]:
    """The links of a document. `workflow` is a name or an id of its workflow."""
    own = execution_link(exchange, document["execution_id"])
    links = {
        "self": own,
        "events": own + "/events",
        "stream": own + "/stream",
        "graph": own + "/graph",
        "nodes": own + "/nodes",
    }
    if document["status"] in FINISHED:
        links["retry"] = own + "/retry"
    else:
        links["cancel"] = own + "/cancel"
        if document.get("waiting"):
            links["resume"] = own + "/resume"
    links["workflow"] = exchange.workflow_link(workflow)
    return links
