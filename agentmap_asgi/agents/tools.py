"""Tools: the host's Python functions, and what they take as JSON Schema; called with checked arguments."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_type_hints

from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import ConfigError, ToolFailed
from ..execution.values import copied, text_of
from .folder import imported, place_of
from .models_talk import ToolUse
from .registry import InnerCall

CALL: Final = "call"
"""A parameter of this name is given the node's call, and not shown to models."""
HOST: Final = ""
"""Where tools are from that the host registers."""
MOST_TOLD: Final = 100_000
"""Characters of a tool's result that a model is told."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class Refused(Exception):
    """Arguments that a tool does not take; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Tool:
    """A function that rows and models may call."""

    name: str
    function: Callable[..., Any] = field(repr=False)
    description: str
    schema: Mapping[str, Any] = field(repr=False)
    """What it takes: the JSON Schema of an object."""
    parameters: tuple[str, ...]
    required: frozenset[str]
    source: str = HOST
    """The file of the tools folder that it stands in, without `.py`."""
    takes_call: bool = False
    open_ended: bool = False
    """It takes further arguments (`**kwargs`)."""
    is_async: bool = False
    model: Any = field(default=None, repr=False)

    def checked(self, arguments: Any) -> dict[str, Any]:
        """The arguments as the function's types say. Raises Refused."""
        from pydantic import ValidationError

        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError:
                raise Refused("the arguments are not JSON") from None
        if not isinstance(arguments, dict):
            raise Refused("the arguments are no object")
        try:
            found = self.model.model_validate(arguments)
        except ValidationError as exc:
            wrong = exc.errors(include_url=False, include_input=False, include_context=False)
            places = (f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in wrong[:5])
            raise Refused("; ".join(places)) from None
        given = {row.alias: getattr(found, name) for name, row in type(found).model_fields.items()}
        return {**given, **(found.model_extra or {})}


def tool_of(name: str, function: Any, source: str = HOST) -> Tool:
    """A tool from a function. Raises ConfigError for what cannot be called with named arguments."""
    from pydantic import ConfigDict, Field, create_model
    from pydantic.errors import PydanticUserError

    if isinstance(function, Tool):
        return function
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"The tool {name!r}: a name has letters, digits, _ and -, at most 64")
    if not callable(function) or isinstance(function, type):
        raise ConfigError(f"The tool {name!r} is {function!r}; give a function")
    call = function if inspect.isroutine(function) else type(function).__call__
    inner = function.func if isinstance(function, functools.partial) else function
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigError(f"The tool {name!r} is a generator; return the result instead of yielding it")
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(inner if inspect.isroutine(inner) else call, include_extras=True)
    except (ValueError, TypeError, NameError) as exc:
        raise ConfigError(f"The tool {name!r} does not say what it takes: {exc}") from None
    fields: dict[str, Any] = {}
    names: list[str] = []
    takes_call = open_ended = False
    for parameter in signature.parameters.values():
        if parameter.name == CALL:
            takes_call = True
        elif parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise ConfigError(f"The tool {name!r}: {parameter} cannot be given by name")
        else:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[f"p{len(names)}"] = (hints.get(parameter.name, Any), Field(default, alias=parameter.name))
            names.append(parameter.name)
    try:
        model = create_model(name, __config__=ConfigDict(extra="allow" if open_ended else "forbid"), **fields)
        schema = model.model_json_schema()
    except (PydanticUserError, TypeError) as exc:
        raise ConfigError(f"The tool {name!r}: its types cannot be given as JSON: {str(exc).splitlines()[0]}") from None
    schema.pop("title", None)
    for part in schema.get("properties", {}).values():
        part.pop("title", None)
    return Tool(
        name=name,
        function=function,
        description=inspect.cleandoc(inspect.getdoc(inner) or "").strip(),
        schema={"properties": {}, **schema},
        parameters=tuple(names),
        required=frozenset(schema.get("required", ())),
        source=source,
        takes_call=takes_call,
        open_ended=open_ended,
        is_async=inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call),
        model=model,
    )


def load_tools(config: AgentMapConfig, context: AgentMapContext) -> dict[str, Tool]:
    """The host's tools and those of the folder `tools_path`, by name: its public functions, also async ones.

    Raises ConfigError for a name that is given twice, a function that is no tool, and a folder that cannot be used.
    """
    given: Any = context.tools
    pairs: Iterable[tuple[str, Any]] = (
        given.items() if isinstance(given, Mapping) else [(getattr(one, "__name__", ""), one) for one in given]
    )
    found: dict[str, Tool] = {}
    for name, function in pairs:
        if name in found:
            raise ConfigError(f"The tool {name!r} is given twice in the context object")
        found[name] = tool_of(str(name), function)
    if config.tools_path is not None:
        for source, name, function in _public(config.tools_path):
            if name in found:
                first = "in the context object" if found[name].source == HOST else f"in {found[name].source}.py"
                raise ConfigError(f"The tool {name!r} is given twice: {first}, and at {place_of(function)}")
            try:
                found[name] = tool_of(name, function, source)
            except ConfigError as exc:
                raise ConfigError(f"{place_of(function)}: {exc.message}") from None
    return found


def _public(folder: str | Path) -> Iterator[tuple[str, str, Any]]:
    for source, module in imported(folder, "tools_path", "tools"):
        for name, thing in vars(module).items():
            if inspect.isfunction(thing) and not name.startswith("_") and thing.__module__ == module.__name__:
                yield source.stem, name, thing


def tools_of(context: AgentMapContext) -> dict[str, Tool]:
    """The tools of a context object that has been through `load_tools`."""
    return dict(context.tools) if isinstance(context.tools, Mapping) else {}


async def use(call: InnerCall, tool: Tool, arguments: dict[str, Any]) -> Any:
    """The tool's result, of checked arguments. Raises ToolFailed for whatever it raises."""
    given = {**arguments, CALL: call} if tool.takes_call else arguments
    try:
        if tool.is_async:
            return await tool.function(**given)
        return await call.in_thread(functools.partial(tool.function, **given))
    except Exception as exc:  # the host's function, whatever it raises
        text = " ".join(str(exc).split())[:500]
        said = f"{type(exc).__name__}: {text}" if text else type(exc).__name__
        raise ToolFailed(f"The tool {tool.name!r} failed: {said}") from exc


async def told(call: InnerCall, tool: Tool | None, asked: ToolUse) -> str:
    """What a model is told about a tool it has asked for: the result, or why the tool cannot be called so."""
    if tool is None:
        return f"There is no tool {asked.name!r}"
    try:
        arguments = tool.checked(asked.arguments)
    except Refused as exc:
        call.log(f"The model calls the tool {tool.name!r} with arguments that it does not take")
        return f"The tool cannot be called so: {exc}"
    call.log(f"The model uses the tool {tool.name!r}")
    result = copied(await use(call, tool, arguments), f"The result of the tool {tool.name!r}", limit=MOST_TOLD)
    return text_of(result)


def matched(tool: Tool, names: list[str], *, positional: bool) -> dict[str, str]:
    """Parameters by input name: by name when every input is one, else by position if the row gives no names.

    Raises Refused.
    """
    if tool.open_ended or all(name in tool.parameters for name in names):
        found = {name: name for name in names}
    elif positional and len(names) <= len(tool.parameters):
        found = dict(zip(names, tool.parameters, strict=False))
    else:
        wrong = next(name for name in names if name not in tool.parameters)
        raise Refused(f"it takes {', '.join(tool.parameters) or 'nothing'}, and not {wrong!r}")
    if missing := sorted(tool.required - set(found.values())):
        raise Refused(f"it needs {', '.join(missing)}")
    return found
