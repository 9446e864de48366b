"""SIGKILL: at random moments, with one process and with several."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from checker import Lives, check
from processes import Nursery

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("durability", "few", "many"), [("sync", 3, 200), ("async", 1, 50), ("exit", 1, 50)])
def test_a_killed_process_loses_nothing_and_repeats_nothing(
    durability: str, few: int, many: int, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """What was accepted ends, and a node whose end was committed does not run again, whenever the kill falls."""
    dice = random.Random(durability)
    lives = Lives()
    for number in range(few if rounds == 1 else many):
        worker = nursery.make("work", tmp_path, seed=number, durability=durability)
        worker.until("ready")
        time.sleep(dice.random() ** 2 * 1.0 if number else 0.5)
        worker.kill()
        lives.crash(tmp_path)
    nursery.drain(tmp_path, durability=durability)
    report = check(tmp_path, lives, durability=durability)
    report.assert_good(least=5)
    print(report)
