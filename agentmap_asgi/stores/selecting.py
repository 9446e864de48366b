"""The query that a Filter means, for stores that keep executions in a table of SQL."""

from __future__ import annotations

from typing import Any

from .store import Filter

Term = tuple[str, tuple[Any, ...]]


def selecting(names: str, namespace: str, wanted: Filter, sign: str, statuses: Term, tag: str) -> tuple[str, list[Any]]:
    """(query, values) for the columns `names`. `sign` stands for a value in a query; `statuses` and `tag` are how the
    database is asked for those.
    """
    terms: list[Term] = [(f"namespace = {sign}", (namespace,))]
    if wanted.graph is not None:
        terms.append((f"(graph_id = {sign} OR graph_name = {sign})", (wanted.graph, wanted.graph)))
    if wanted.statuses:
        terms.append(statuses)
    if wanted.owner is not None:
        terms.append((f"owner = {sign}", (wanted.owner,)))
    if wanted.tag is not None:
        terms.append((tag, (wanted.tag,)))
    if wanted.since is not None:
        terms.append((f"created >= {sign}", (wanted.since,)))
    if wanted.until is not None:
        terms.append((f"created < {sign}", (wanted.until,)))
    if wanted.before is not None:
        terms.append((f"(created, id) < ({sign}, {sign})", wanted.before))
    query = (
        f"SELECT {names} FROM executions WHERE {' AND '.join(term for term, _ in terms)} "
        f"ORDER BY created DESC, id DESC LIMIT {sign}"
    )
    return query, [*(value for _, some in terms for value in some), wanted.limit]
