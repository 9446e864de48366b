"""The versions of workflows: which were served since when, kept in the store, and what changed from one to another."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from ..context import Clock
from ..errors import InputInvalid, StoreUnavailable
from ..execution.records import stamp
from ..stores.store import Store, Version
from ..workflows.model import Workflow
from ..workflows.pinned import pinned, unpinned

if TYPE_CHECKING:
    from ..workflows.comparing import WorkflowChange

logger = logging.getLogger("agentmap_asgi")

SHORTEST: Final = 6
"""Signs that a hash must have at least when it is not given in full."""


class _Served:
    """A workflow that is served since a moment. Hash and text are made by the store, in its own thread."""

    __slots__ = ("graph_id", "since", "workflow")

    def __init__(self, workflow: Workflow, since: int) -> None:
        self.workflow = workflow
        self.graph_id = workflow.graph_id
        self.since = since

    @property
    def definition(self) -> str:
        return self.workflow.version

    def text(self) -> str:
        return pinned(self.workflow)


class Versions:
    """Notes versions in the store. What was served before the store was opened is noted when it is."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[_Served] = []
        self._known: frozenset[Workflow] = frozenset()

    def serve(self, workflows: Iterable[Workflow]) -> None:
        """These are served from now on. Any thread; nothing is written yet."""
        now = self._clock.time_ns()
        healthy = [workflow for workflow in workflows if not workflow.broken]
        self._waiting += [_Served(workflow, now) for workflow in healthy if workflow not in self._known]
        self._known = frozenset(healthy)

    @property
    def waiting(self) -> bool:
        """Whether there is something to be written."""
        return bool(self._waiting)

    async def write(self) -> None:
        """Tell the store, which must be open. What it cannot write just now is written the next time."""
        told, self._waiting = self._waiting, []
        if not told:
            return
        try:
            await self._store.note(told)
        except StoreUnavailable as exc:
            self._waiting = told + self._waiting
            logger.warning("The versions of workflows cannot be kept just now: %s", exc.message)
        except BaseException:
            self._waiting = told + self._waiting
            raise

    async def listed(self, workflow: Workflow) -> dict[str, Any]:
        """`{"graph_id", "versions": [{"version", "since", "current"}], "total_count"}`, the newest first."""
        found = [
            {"version": one.definition, "since": stamp(one.since), "current": one.definition == workflow.version}
            for one in await self._all(workflow)
        ]
        return {"graph_id": workflow.graph_id, "versions": found, "total_count": len(found)}

    async def difference(self, workflow: Workflow, old: str, new: str) -> dict[str, Any]:
        """What changed between two versions. Raises InputInvalid for one that the store does not have."""
        known = await self._all(workflow)
        sides = []
        for name, asked in (("from", old), ("to", new)):
            version = _chosen(known, asked, workflow.version, name)
            if version.definition == workflow.version:
                sides.append((version, workflow))
                continue
            text = await self._store.pinned(version.definition)
            if text is None:
                raise _unknown(name, asked)
            sides.append((version, unpinned(text, version.definition)))
        (before, first), (after, second) = sides
        from ..workflows.comparing import compare

        change = compare(first, second)
        return {
            "graph_id": workflow.graph_id,
            "from": {"version": before.definition, "since": stamp(before.since)},
            "to": {"version": after.definition, "since": stamp(after.since)},
            "changed": change is not None,
            **_told(change),
        }

    async def _all(self, workflow: Workflow) -> list[Version]:
        await self.write()
        found = await self._store.versions(workflow.graph_id)
        if workflow.broken or any(one.definition == workflow.version for one in found):
            return found
        await self._store.note([_Served(workflow, self._clock.time_ns())])  # another call is about to write it
        return await self._store.versions(workflow.graph_id)


def _told(change: WorkflowChange | None) -> dict[str, Any]:
    if change is None:
        return {"entry": None, "nodes": [], "text": ""}
    found = change.to_dict()
    return {"entry": found["entry"], "nodes": found["nodes"], "text": "\n".join(change.lines()) + "\n"}


def _chosen(known: list[Version], asked: str, current: str, name: str) -> Version:
    """The version that is meant by `current`, `previous` (the newest that differs from the current), or a hash."""
    if asked == "current":
        found = [one for one in known if one.definition == current]
    elif asked == "previous":
        found = [one for one in known if one.definition != current]
        if not found:
            raise InputInvalid("There is no version before the current one")
    else:
        found = [one for one in known if len(asked) >= SHORTEST and one.definition.startswith(asked.lower())]
        if len({one.definition for one in found}) > 1:
            raise InputInvalid(f"Several versions begin with {asked[:64]!r}; give more of the hash")
    if not found:
        raise _unknown(name, asked)
    return found[0]


def _unknown(name: str, asked: str) -> InputInvalid:
    return InputInvalid(f"{name}={asked[:64]!r} is no version of this workflow; GET …/versions lists them")
