"""Which processes count as dead: the rule, without a server."""

from __future__ import annotations

import pytest

from agentmap_asgi.stores.postgres_peers import GRACE, Peer, Peers

LEASE = 15.0


def seen(*, silent: float = 0.0, locked: bool = True, up: float = 10_000.0) -> list[Peer]:
    return [Peer("p", silent, locked, up, "ns", None)]


def test_a_process_with_its_lock_and_a_heartbeat_lives() -> None:
    """However long one looks."""
    peers = Peers(LEASE)
    assert not any(peers.dead(seen(silent=n % 10), float(n), None) for n in range(100))


def test_a_process_that_is_silent_for_the_lease_is_dead() -> None:
    """Although its lock is held: it stands still, or its connection does."""
    peers = Peers(LEASE)
    assert not peers.dead(seen(silent=LEASE - 0.1), 0.0, None)
    assert peers.dead(seen(silent=LEASE), 0.1, None) == {"p"}
    assert not peers.dead(seen(silent=0.0), 0.2, None)  # it is back


def test_a_process_without_its_lock_is_dead_a_moment_later() -> None:
    """One whose connection has broken off is back before that, and gets the moment anew each time."""
    peers = Peers(LEASE)
    assert not peers.dead(seen(locked=False), 0.0, None)
    assert not peers.dead(seen(locked=False), GRACE - 0.01, None)
    assert not peers.dead(seen(), GRACE, None)
    assert not peers.dead(seen(locked=False), GRACE + 0.01, None)
    assert peers.dead(seen(locked=False), 2 * GRACE + 0.02, None) == {"p"}
    assert not peers.dead([], 3 * GRACE, None)


@pytest.mark.parametrize("silent", [0.0, 600.0])
def test_after_a_restart_of_the_server_everybody_has_the_lease_to_come_back(silent: float) -> None:
    """Nobody has a lock then, and nobody could write a heartbeat."""
    peers = Peers(LEASE)
    for second in range(15):
        assert not peers.dead(seen(silent=silent, locked=False, up=float(second)), float(second), None)
    assert peers.dead(seen(silent=silent, locked=False, up=15.0), 15.0, None) == {"p"}


def test_who_was_cut_off_does_not_bury_the_others_at_once() -> None:
    """It may be the first one back, from a server that another has taken the place of."""
    peers = Peers(LEASE)
    assert not peers.dead(seen(silent=600.0, locked=False), 100.0, 100.0)
    assert not peers.dead(seen(silent=600.0, locked=False), 114.9, 100.0)
    assert peers.dead(seen(silent=600.0, locked=False), 115.0, 100.0) == {"p"}
