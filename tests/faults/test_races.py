"""Four processes that answer the same waits at once, each in an order of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from checker import Lives, check
from processes import Nursery
from steps import raced
from world import WAITS

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def test_each_wait_has_one_winner(nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """Double answers, in whatever order: as many winners as waits, and the winner's answer is the one that counts."""
    many = 30 if rounds == 1 else 500
    graphs = ["Asks", "Nest", "Pair"]
    first = nursery.make("work", tmp_path, starts=many, answers=False, graphs=graphs, clients=16, sync=False)
    first.until("closed")
    first.wait()
    crowd = [nursery.make("race", tmp_path, seed=number) for number in range(4)]
    won = raced(crowd)
    report = check(tmp_path, Lives())
    report.assert_good(least=many)
    assert report.completed == many
    assert sum(won) == report.answers
    assert report.repeated == 0
    assert sum(count > 0 for count in won) > 1, won
    print(f"{report.answers} waits of {many} executions, won by {won}")
    assert report.answers >= many * min(map(len, WAITS.values()))
