"""Waiting for an answer: what an agent asks for, which answers fit, and what an answer means for its node. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from ..agents.registry import Outcome
from ..errors import InputInvalid, ResultInvalid, StoreDamaged, WaitExpired
from .values import copied

TYPES: Final = ("data", "approval", "choice", "text_input", "edit", "form", "input")
"""What kinds of answers a wait may take. `data` and `input` take any JSON value."""
ACTIONS: Final = ("answer", "approve", "reject")
MOST_SECONDS: Final = 10**9
"""A wait is shorter than this."""
MOST_ERRORS: Final = 100
"""Places that a refusal of a form names."""
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
    `on_timeout`, a node that its row leads to, or fails with `wait_expired`. Raises TypeError or ValueError for what
    cannot be waited for.
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
        if expires_in is not None and not 0 < expires_in < MOST_SECONDS:
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


def wait_of(suspend: Suspend, path: str, node: str, now: int, *, limit: int | None = None, longest: float = 0) -> Wait:
    """The wait that a Suspend opens, of at most `longest` seconds (0: no bound). Raises ResultInvalid when something of
    it is not JSON, OutputTooLarge past `limit` bytes.
    """
    seconds = min(suspend.expires_in or inf, longest or inf)
    expires = None if seconds == inf else now + int(seconds * 1e9)
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
        limit=limit,
    )
    if not isinstance(wait["prompt"], str) or not all(isinstance(one, str) for one in wait["options"]):
        raise ResultInvalid("Suspend takes a text as prompt and texts as options")
    if not all(isinstance(one, str) for one in wait["assignees"]):
        raise ResultInvalid("Suspend takes texts as assignees")
    problem = None if wait["form"] is None else form_problem(wait["form"])
    if problem is not None:
        raise ResultInvalid(f"Suspend takes a JSON Schema as form: {problem}")
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


def wake_of(waits: Iterable[Wait]) -> int | None:
    """When the first of them expires."""
    return min((wait["expires"] for wait in waits if wait["expires"]), default=None)


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
    if kind == "input" and data is None:
        raise InputInvalid("data is what the node asks for, and not null", pointer="/data")
    if wait["form"] is not None:
        _fits(wait["form"], data)
    return answer


def _fits(form: Mapping[str, Any], data: Any) -> None:
    """Raises InputInvalid naming each place where data breaks the form, and what that says."""
    try:
        errors = misfits(form, data, "/data")
    except ValueError:
        raise InputInvalid(
            "The form refers to what it does not have, or to itself without end", pointer="/data"
        ) from None
    if errors:
        said = "; ".join(f"{error['pointer']}: {error['message']}" for error in errors[:3])
        raise InputInvalid(f"data does not fit the form. {said}", errors=errors)


def misfits(form: Mapping[str, Any], data: Any, start: str) -> list[dict[str, str]]:
    """Each place where data breaks a JSON Schema (draft 2020-12): pointer, code and message, which never has the data.

    Raises ValueError for a schema that refers to what it does not have.
    """
    from jsonschema import Draft202012Validator, ValidationError, validators
    from referencing.exceptions import Unresolvable

    def unique(validator: Any, wanted: Any, items: Any, schema: Any) -> Iterator[Any]:
        """In one pass; the package compares each with each."""
        if wanted is True and isinstance(items, list):
            seen = {json.dumps(item, sort_keys=True) for item in items}
            if len(seen) < len(items):
                yield ValidationError("an item is there twice")

    checks = validators.extend(Draft202012Validator, {"uniqueItems": unique})  # type: ignore[no-untyped-call]
    try:
        return [
            {"pointer": pointer(start, found.path), "code": str(found.validator), "message": _wanted(found)}
            for found in islice(checks(form).iter_errors(data), MOST_ERRORS)
        ]
    except (RecursionError, Unresolvable) as exc:
        raise ValueError("it refers to what it does not have, or to itself without end") from exc


def _wanted(found: Any) -> str:
    """What the form says; never what came in."""
    if found.validator == "required":
        missing = [name for name in found.validator_value if name not in found.instance]
        return f"it lacks {', '.join(missing)}"
    if found.validator == "additionalProperties":
        return f"it takes no other fields than {', '.join(found.schema.get('properties', ()))}"
    text = json.dumps(found.validator_value, ensure_ascii=False)
    return f"the form says {found.validator}: {text[:200]}"


def pointer(start: str, path: Iterable[Any]) -> str:
    """A JSON Pointer (RFC 6901)."""
    return start + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def form_problem(form: Any, *, patterns: bool = True) -> str | None:
    """Why something is no JSON Schema that a form can have.

    Regular expressions (`patterns`) are for forms that come from code: some take for ever on a text made for that.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if not isinstance(form, dict):
        return "it is no object"
    try:
        Draft202012Validator.check_schema(form)
    except SchemaError as exc:
        return f"{exc.message[:200]} (at {pointer('', exc.path) or 'the top'})"
    except RecursionError:
        return "it is nested too deeply"
    for schema in _objects(form):
        for key in ("$ref", "$dynamicRef"):
            if isinstance(schema.get(key), str) and not _leads(form, schema[key]):
                return f"{key} leads to {schema[key]!r}, which is not in the form"
        if not patterns and (
            isinstance(schema.get("pattern"), str) or isinstance(schema.get("patternProperties"), dict)
        ):
            return "it has a regular expression; use enum, minLength and maxLength"
    return None


def _leads(form: Any, reference: str) -> bool:
    """Whether a reference is a pointer into the form itself."""
    if not reference.startswith("#"):
        return False
    at = form
    for part in unquote(reference[1:]).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list) and key.isdecimal() and int(key) < len(at):
            at = at[int(key)]
        elif isinstance(at, dict) and key in at:
            at = at[key]
        else:
            return False
    return reference == "#" or reference.startswith("#/")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    look = [value]
    while look:
        one = look.pop()
        if isinstance(one, dict):
            yield one
            look.extend(one.values())
        elif isinstance(one, list):
            look.extend(one)


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
