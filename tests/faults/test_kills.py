"""SIGKILL: at random moments, with one process and with several."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from checker import Lives, check
from processes import Nursery, wait_for
from world import EFFECTS, count

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("durability", "few", "many"), [("sync", 3, 200), ("async", 1, 50), ("exit", 1, 50)])
def test_a_killed_process_loses_nothing_and_repeats_nothing(
    durability: str, few: int, many: int, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """What was accepted ends, and a node whose end was committed does not run again, whenever the kill falls."""
    dice = random.Random(durability)
    kills = executions = effects = repeated = answers = 0
    left = few if rounds == 1 else many
    while left:
        folder = tmp_path / str(left)
        folder.mkdir()
        lives = Lives()
        for number in range(min(left, 25)):
            worker = nursery.make("work", folder, seed=left + number, durability=durability)
            worker.until("ready")
            if number:
                time.sleep(dice.random() ** 2 * 1.0)
            else:  # on a machine that is busy with other things it may be long before anything is done
                wait_for(lambda: count(folder / EFFECTS) >= 40)  # noqa: B023
            worker.kill()
            lives.crash(folder)
        left -= lives.crashes
        nursery.drain(folder, durability=durability)
        nursery.sweep()
        report = check(folder, lives, durability=durability)
        report.assert_good(least=5)
        kills += lives.crashes
        executions += report.executions
        effects += report.effects
        repeated += report.repeated
        answers += report.answers
    print(
        f"{durability}: {kills} kills, {executions} executions, {answers} answers, {effects} effects, "
        f"{repeated} of them repeated"
    )
