"""The same behaviour on every engine: tests of other rooms run again, with the settings of DBOS."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
from postgresql import Server

from agentmap_asgi.config import AgentMapConfig

sys.path += [str(Path(__file__).parents[1] / room) for room in ("execution", "http")]

import test_executions
import test_executor
import test_policies
import test_sub_workflows
import test_waiting

pytestmark = pytest.mark.anyio

SAME: dict[Any, str] = {
    test_executor: (
        "a_line_runs_from_its_first_row_to_its_end a_join_runs_once_for_uneven_branches "
        "a_branch_sees_the_state_at_its_fork_and_its_own_writes the_later_target_wins_whichever_finished_first "
        "branches_run_at_the_same_time a_loop_runs_until_its_condition_ends_it where_a_raised_error_leads "
        "where_a_no_leads independent_branches_run_on_after_a_failure the_flag_after_a_join "
        "a_routing_function_says_where_to_go state_updates_may_set_the_flag cancelled_is_cancelled "
        "the_caller_may_go_away"
    ),
    test_policies: (
        "attempts_are_made_until_one_succeeds the_last_failure_counts_when_all_attempts_fail "
        "only_the_named_kinds_are_tried_again an_attempt_past_its_timeout_has_failed a_timeout_is_for_each_attempt "
        "items_run_side_by_side_up_to_concurrency on_item_error "
        "retry_and_timeout_are_for_each_item the_idempotency_key_of_a_visit"
    ),
    test_sub_workflows: (
        "what_goes_in_and_comes_out a_failed_child_fails_its_node parallel_children_do_not_see_each_other"
    ),
    test_waiting: (
        "an_answer_becomes_the_result a_rejection_is_a_no a_wait_two_workflows_down "
        "waits_of_several_sub_workflows_are_answered_one_after_the_other a_wait_in_a_loop "
        "a_wait_that_expires_takes_its_own_way own_agents_wait of_many_answers_one_counts"
    ),
    test_executions: (
        "an_async_start_is_answered_at_once an_execution_that_waits_is_answered "
        "cancelling_ends_an_execution a_failed_execution_is_retried_as_a_new_one "
        "a_deleted_execution_is_gone events_tell_what_happened"
    ),
}
"""By module: tests, without their `test_`."""

MOST = 2
"""Combinations of parameters of a test."""
ONE = {"face": 1, "store": "sqlite"}
"""Parameters that are of no account here: so many of the values, or this value."""


def cases() -> Iterator[Any]:
    for module, names in SAME.items():
        for name in names.split():
            function = getattr(module, f"test_{name}")
            for values in islice(_parameters(function), MOST):
                yield pytest.param(function, values, id="-".join([name, *map(str, values.values())])[:80])


def _parameters(function: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    rows: list[list[dict[str, Any]]] = []
    for mark in marks:
        names, found = mark.args[0], list(mark.args[1])
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        if names[0] in ONE:
            only = ONE[names[0]]
            found = found[:only] if isinstance(only, int) else [only]
        rows.append([dict(zip(names, value if len(names) > 1 else [value], strict=True)) for value in found])
    for combination in product(*rows):
        yield {name: value for part in combination for name, value in part.items()}


@pytest.fixture
def on_dbos(hosts_dbos: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings that no test gives are those of DBOS, and of a store in PostgreSQL."""
    defaults = AgentMapConfig.__init__.__kwdefaults__
    assert defaults is not None
    settings = {
        "engine": "dbos",
        "engine_url": hosts_dbos,
        "storage_url": hosts_dbos,
        "storage_schema": Server.schema(),
    }
    for name, value in settings.items():
        monkeypatch.setitem(defaults, name, value)
    return settings


@pytest.mark.parametrize(("case", "values"), list(cases()))
async def test_dbos_behaves_as_the_local_engine(
    case: Callable[..., Any], values: dict[str, Any], tmp_path: Path, on_dbos: dict[str, Any]
) -> None:
    """What a test of the local engine asserts holds on DBOS too."""
    wanted = inspect.signature(case).parameters
    given = {**values, "tmp_path": tmp_path, "url": on_dbos["storage_url"]}
    await case(**{name: given[name] for name in wanted})
