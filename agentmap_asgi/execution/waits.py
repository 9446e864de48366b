"""Waiting for an answer: what an agent asks for, which answers fit, and what an answer means for its node. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..agents.registry import Outcome
from ..errors import InputInvalid, ResultInvalid, StoreDamaged, WaitExpired
from .values import copied

TYPES: Final = ("data", "approval", "choice", "text_input", "edit", "form", "input")
"""What kinds of answers a wait may take. `data` and `input` take any JSON value."""
ACTIONS: Final = ("answer", "approve", "reject")
EXPIRED: Final = "expired"
"""The action of an answer that never came."""

Wait = dict[str, Any]
"""An open wait as JSON: path, node, type, prompt, options, form, assignees, value, expires (ns since 1970 or None),
on_timeout (node or None). `path` is its address in the execution: `node#visit`, in a sub-workflow after that of the
node that runs it."""


class Suspend(Exception):  # it is no error; raising is one of two ways to say it
    """Wait for an answer from outside: an agent returns it, or raises it. The answer becomes the node's result.

    `type` says which answers fit: `approval` (approve or reject), `choice` (one of `options`), `text_input`, `edit`
    (`value` is what to edit), `form` (`form` is a JSON Schema) or `data` (anything). `assignees` are ids of principals,
    or `role:name`; without any, whoever may see the execution may answer. After `expires_in` seconds the node goes to
    `on_timeout`, or fails with `wait_expired`. Raises TypeError or ValueError for what cannot be waited for.
    """

    def __init__(
        self,
        prompt: str = "",
        *,
        type: str = "data",  # the field's word
        options: Sequence[str] = (),
        form: Mapping[str, Any] | None = None,
        assignees: Sequence[str] = (),
        value: Any = None,
        expires_in: float | None = None,
        on_timeout: str | None = None,
    ) -> None:
        super().__init__(prompt)
        if type not in TYPES:
            raise ValueError(f"Suspend takes a type among {', '.join(TYPES)}, not {type!r}")
        if isinstance(options, str) or isinstance(assignees, str):
            raise TypeError("Suspend takes options and assignees as lists")
        if type == "choice" and not options:
            raise ValueError("Suspend(type='choice') needs options")
        if expires_in is not None and not 0 < expires_in < 10**9:
            raise ValueError(f"Suspend(expires_in=…) takes seconds, not {expires_in!r}")
        self.prompt = prompt
        self.type = type
        self.options = list(options)
        self.form = None if form is None else dict(form)
        self.assignees = list(assignees)
        self.value = value
        self.expires_in = expires_in
        self.on_timeout = on_timeout


class Answer(NamedTuple):
    """What came in for a wait."""

    action: str
    data: Any = None
    by: str | None = None

    def to_dict(self, path: str) -> dict[str, Any]:
        return {"path": path, **self._asdict()}


def wait_of(suspend: Suspend, path: str, node: str, now: int) -> Wait:
    """The wait that a Suspend opens. Raises ResultInvalid when something of it is not JSON."""
    expires = None if suspend.expires_in is None else now + int(suspend.expires_in * 1e9)
    wait: Wait = copied(
        {
            "path": path,
            "node": node,
            "type": suspend.type,
            "prompt": suspend.prompt,
            "options": suspend.options,
            "form": suspend.form,
            "assignees": suspend.assignees,
            "value": suspend.value,
            "expires": expires,
            "on_timeout": suspend.on_timeout,
        },
        "Suspend",
    )
    if not isinstance(wait["prompt"], str) or not all(isinstance(one, str) for one in wait["options"]):
        raise ResultInvalid("Suspend takes a text as prompt and texts as options")
    return wait


_KINDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("path", "node", "type", "prompt"), str),
    **dict.fromkeys(("options", "assignees"), list),
    "form": dict | None,
    "expires": int | None,
    "on_timeout": str | None,
    "value": object,
}


def waits_of(execution_id: str, text: str) -> list[Wait]:
    """The open waits as a store has them. Raises StoreDamaged for what are none."""
    if text == "[]":
        return []
    try:
        waits = json.loads(text)
    except (ValueError, RecursionError):
        waits = None
    if isinstance(waits, list) and all(isinstance(wait, dict) and _is_wait(wait) for wait in waits):
        return waits
    raise StoreDamaged(execution_id, "its waits are none")


def _is_wait(wait: dict[str, Any]) -> bool:
    return all(name in wait and isinstance(wait[name], kind) for name, kind in _KINDS.items())


def checked(wait: Wait, answer: Answer) -> Answer:
    """The answer, when it fits the wait. Raises InputInvalid saying what would."""
    kind, action, data = wait["type"], answer.action, answer.data
    if action not in ACTIONS:
        raise InputInvalid(f"The action is one of {', '.join(ACTIONS)} or cancel", pointer="/action")
    if kind == "approval":
        if action == "answer":
            raise InputInvalid("This wait takes the action approve or reject", pointer="/action")
        comment = data.get("comment") if isinstance(data, dict) else data
        if comment is not None and not isinstance(comment, str):
            raise InputInvalid("The comment of an approval is a text", pointer="/data")
        return answer
    if action != "answer":
        raise InputInvalid("This wait takes the action answer, with data", pointer="/action")
    if kind == "choice" and data not in wait["options"]:
        raise InputInvalid(f"data is one of {', '.join(wait['options'])}", pointer="/data")
    if kind == "text_input" and not isinstance(data, str):
        raise InputInvalid("data is a text", pointer="/data")
    if kind == "form" and not isinstance(data, dict):
        raise InputInvalid("data is an object, as the form says", pointer="/data")
    if wait["form"] is not None:
        _fits(wait["form"], data)
    return answer


def _fits(form: Mapping[str, Any], data: Any) -> None:
    """Raises InputInvalid naming every place where data breaks a JSON Schema (draft 2020-12)."""
    from jsonschema import Draft202012Validator

    errors = [
        {
            "pointer": "/data" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in found.path),
            "code": str(found.validator),
            "message": f"It does not fit the form: {found.validator}",
        }
        for found in Draft202012Validator(form).iter_errors(data)
    ]
    if errors:
        raise InputInvalid("data does not fit the form", errors=errors[:100])


def form_problem(form: Any) -> str | None:
    """Why something is no JSON Schema that a form can have."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if not isinstance(form, dict):
        return "a form is a JSON Schema, an object"
    try:
        Draft202012Validator.check_schema(form)
    except SchemaError as exc:
        return str(exc.message)
    if any(ref for ref in _refs(form) if not str(ref).startswith("#")):
        return "a $ref of a form stays inside the form"
    return None


def _refs(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [ref for item in value for ref in _refs(item)]
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [ref for item in value.values() for ref in _refs(item)]
    return []


def outcome(wait: Wait, answer: Answer) -> Outcome:
    """What an answer means for the node. Raises WaitExpired when none came and the row does not say what then."""
    if answer.action == EXPIRED:
        if wait["on_timeout"] is None:
            raise WaitExpired(f"Nobody answered {wait['node']!r} in time")
        return Outcome(None, False, wait["on_timeout"])
    if wait["type"] == "approval":
        approved = answer.action == "approve"
        comment = answer.data.get("comment") if isinstance(answer.data, dict) else answer.data
        return Outcome({"approved": approved, "comment": comment, "by": answer.by}, approved)
    return Outcome(answer.data)
