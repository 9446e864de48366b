"""The built-in agents: one row each."""

from __future__ import annotations

from typing import Final

from . import basic, routing
from .registry import Agent, Registry

BUILTINS: Final = Registry(
    [
        Agent(
            name="default",
            summary="Renders Prompt; without one passes its inputs on.",
            compile=basic.default,
            mentions=basic.prompt_mentions,
            options=frozenset(),
            idempotent=True,
        ),
        Agent(
            name="echo",
            summary="Passes its input on (several as an object), or renders a Prompt that has {fields}.",
            compile=basic.echo,
            mentions=basic.prompt_mentions,
            options=frozenset(),
            idempotent=True,
        ),
        Agent(
            name="input",
            summary="Takes the value that the caller put under its Output_Field.",
            compile=basic.taken_input,
            reads=basic.input_reads,
            check=basic.check_input,
            options=frozenset(),
            idempotent=True,
        ),
        Agent(
            name="success",
            summary="Renders Prompt (or passes its inputs on) and marks success.",
            compile=basic.success,
            rich=True,
            mentions=basic.prompt_mentions,
            options=frozenset(),
            idempotent=True,
        ),
        Agent(
            name="failure",
            summary="Renders Prompt (or passes its inputs on) and marks failure.",
            compile=basic.failure,
            rich=True,
            mentions=basic.prompt_mentions,
            options=frozenset(),
            idempotent=True,
        ),
        Agent(
            name="summary",
            summary="Joins its inputs into one text, `key: value` by blank lines.",
            compile=basic.summary,
            check=basic.check_summary,
            options=frozenset({"format", "separator", "include_keys"}),
            idempotent=True,
        ),
        Agent(
            name="aggregator",
            summary="Joins its inputs into one object; missing ones are null.",
            compile=basic.aggregator,
            options=frozenset(),
            idempotent=True,
        ),
        Agent(
            name="branching",
            summary="Decides yes or no and routes to Success_Next or Failure_Next.",
            aliases=("branch",),
            compile=routing.branching,
            check=routing.check_branching,
            reads=routing.branching_reads,
            samples=routing.condition_samples,
            rich=True,
            options=frozenset({"when", "success_field", "success_values", "failure_values", "default_result"}),
            idempotent=True,
        ),
        Agent(
            name="switch",
            summary="Chooses the next node by a field's value or a list of conditions.",
            compile=routing.switch,
            check=routing.check_switch,
            targets=routing.switch_targets,
            reads=routing.switch_reads,
            samples=routing.switch_samples,
            rich=True,
            options=frozenset({"field", "cases", "default"}),
            idempotent=True,
        ),
        Agent(
            name="orchestrator",
            summary="Chooses the next node by its name or keywords in the request.",
            compile=routing.orchestrator,
            check=routing.check_orchestrator,
            targets=routing.orchestrator_targets,
            wide=True,
            rich=True,
            options=frozenset({"nodes", "nodeType", "node_type", "default_target"}),
            idempotent=True,
        ),
        Agent(
            name="graph",
            summary="Runs another workflow as one node.",
            aliases=("subgraph",),
            check=routing.check_graph,
            rich=True,
            sub_workflow=True,
            options=frozenset({"workflow", "workflow_field"}),
            idempotent=True,
        ),
    ]
)
