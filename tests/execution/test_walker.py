"""Tokens at forks and joins, one fact a test. Nodes are numbers in row order; the entry is 0."""

from __future__ import annotations

from typing import Any

import pytest
from graphs import Graph, Row, walker_of
from hypothesis import given
from hypothesis import strategies as st

from agentmap_asgi.execution.walker import ErrorEntry, Stamp, Token, Walker, joined_stamp, merge


class Walk:
    """A walk by hand: `walk.done(node, …)` completes the oldest run of a node; `under_way` says what runs."""

    def __init__(self, *cells: tuple[int, ...]) -> None:
        """`cells` holds the targets that a node's cells name, node by node."""
        self.graph: Graph = tuple(Row(cell) for cell in cells)
        self.walker: Walker = walker_of(self.graph)
        self.tokens = [self.walker.start(Token(0, {}, {}))]

    @property
    def under_way(self) -> list[int]:
        return sorted(token.at for token in self.tokens)

    def token(self, node: int) -> Token:
        return next(token for token in self.tokens if token.at == node)

    def done(self, node: int, *, to: tuple[int, ...] | None = None, **fields: Any) -> Walk:
        """The node has run, written `fields`, and leads to all of its targets, or to some."""
        token = self.token(node)
        self.tokens.remove(token)
        token.flag = fields.pop("flag", True)
        token.write(fields)
        self.tokens += self.walker.complete(token, self.graph[node].success if to is None else to)
        return self

    def error(self, node: int, message: str, *, to: tuple[int, ...] | None = None) -> Walk:
        """The node has failed; without `to` nothing handles it."""
        token = self.token(node)
        self.tokens.remove(token)
        token.flag = False
        token.note_error(str(node), message)
        self.tokens += self.walker.park(token) if to is None else self.walker.complete(token, to)
        return self

    @property
    def state(self) -> dict[str, Any]:
        return self.walker.result().values

    @property
    def errors(self) -> list[str]:
        return [entry.message for entry in self.walker.result().errors]


# Joins.


def test_uneven_branches_join_once() -> None:
    """The short branch waits for the long one, and what follows runs once with the writes of both."""
    walk = Walk((1, 2), (4,), (3,), (4,), ())
    walk.done(0).done(1, short=1)
    assert walk.under_way == [2]
    walk.done(2).done(3, long=2)
    assert walk.under_way == [4]
    assert walk.token(4).values == {"short": 1, "long": 2}
    assert walk.walker.visits[4] == 1


def test_a_branch_not_taken_is_not_waited_for() -> None:
    """A node that chose another way keeps no join waiting."""
    walk = Walk((1, 2), (3, 4), (3,), (), ())
    walk.done(0).done(1, to=(4,)).done(2)
    assert walk.under_way == [3, 4]


def test_a_branch_that_ends_is_not_waited_for() -> None:
    """The join starts in the moment in which the last other branch ends."""
    walk = Walk((1, 2), (3,), (3,), ())
    walk.done(0).done(1)
    assert walk.under_way == [2]
    walk.done(2, to=())
    assert walk.under_way == [3]


def test_a_join_waits_for_branches_far_away() -> None:
    """A fork further up may still send somebody."""
    walk = Walk((1, 2), (5,), (3,), (4,), (5, 6), (), ())
    walk.done(0).done(1).done(2).done(3)
    assert walk.under_way == [4]
    walk.done(4, to=(6,))
    assert walk.under_way == [5, 6]


def test_a_node_with_one_source_never_waits() -> None:
    """Two tokens from one node are two runs, each with a number of its own."""
    walk = Walk((1, 2), (3,), (3,), (4,), ())
    walk.done(0).done(1).done(2).done(3)
    assert walk.under_way == [4]
    loop = Walk((1, 2), (0, 3), (), ())
    loop.done(0).done(1).done(2, to=())
    loop.done(0).done(1)
    assert [token.visit for token in loop.tokens if token.at == 3] == [1, 2]


def test_a_join_in_a_loop_joins_each_round() -> None:
    """Each round waits for its own branches."""
    walk = Walk((1,), (2, 3), (4,), (4,), (1, 5), ())
    walk.done(0)
    for number in range(3):
        walk.done(1).done(3, right=number)
        assert walk.under_way == [2]
        walk.done(2, left=number)
        assert walk.under_way == [4]
        assert walk.token(4).values == {"left": number, "right": number}
        walk.done(4, to=(1,) if number < 2 else (5,))
    assert walk.under_way == [5]
    assert walk.walker.visits[4] == 3


def test_nested_forks_join_inside_out() -> None:
    """The inner join waits for its fork only, the outer one for everything."""
    walk = Walk((1, 2), (3, 4), (6,), (5,), (5,), (6,), ())
    walk.done(0).done(1).done(3, a=1)
    assert walk.under_way == [2, 4]
    walk.done(4, b=2)
    assert walk.under_way == [2, 5]
    walk.done(5, c=3)
    assert walk.under_way == [2]
    walk.done(2, d=4)
    assert walk.token(6).values == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_an_unstructured_join_merges_what_it_gets() -> None:
    """Branches of different forks meet; each join takes those that may come, once."""
    walk = Walk((1, 2), (3, 4), (4, 5), (5,), (5,), ())
    walk.done(0).done(1, x=1).done(2, x=2, y=2)
    assert walk.under_way == [3, 4]
    walk.done(4, z=4).done(3, z=3)
    assert walk.under_way == [5]
    assert walk.token(5).values == {"x": 2, "y": 2, "z": 4}
    walk.done(5)
    assert walk.state == {"x": 2, "y": 2, "z": 4}


def test_a_waiting_join_that_comes_before_starts_first() -> None:
    """Two joins wait; the one further up may still send somebody to the other."""
    walk = Walk((1, 2, 3), (4,), (4,), (5,), (5,), ())
    walk.done(0).done(3).done(1).done(2)
    assert walk.under_way == [4]
    walk.done(4)
    assert walk.under_way == [5]


def test_two_joins_of_one_loop_do_not_block_each_other() -> None:
    """Around the loop each comes before the other; without the edge back only one does, and it starts."""
    walk = Walk((1, 2), (2,), (1, 3), ())
    walk.done(0)
    assert walk.under_way == [1]
    walk.done(1)
    assert walk.under_way == [2]
    walk.done(2, to=(3,)).done(3)
    assert not walk.walker.waiting
    assert not walk.walker.active


# Loops.


def test_a_self_loop_repeats() -> None:
    """The node is a join of itself and whoever leads to it; it never waits for its own next round."""
    walk = Walk((1,), (1, 2), ())
    walk.done(0).done(1, to=(1,)).done(1, to=(1,)).done(1, to=(2,))
    assert walk.under_way == [2]
    assert walk.walker.visits == {0: 1, 1: 3, 2: 1}


def test_an_entry_may_lead_to_itself() -> None:
    """Its virtual edge makes it a join, and nothing else can reach it."""
    walk = Walk((0,))
    walk.done(0).done(0).done(0, to=())
    assert walk.walker.visits == {0: 3}
    assert walk.under_way == []


def test_two_loops_one_after_the_other() -> None:
    """The second loop is entered once the first has been left; rounds of one do not hold up the other."""
    walk = Walk((1,), (2,), (1, 3), (4,), (3, 5), ())
    walk.done(0).done(1).done(2, to=(1,)).done(1).done(2, to=(3,))
    walk.done(3).done(4, to=(3,)).done(3).done(4, to=(5,))
    assert walk.walker.visits == {0: 1, 1: 2, 2: 2, 3: 2, 4: 2, 5: 1}


def test_two_loops_side_by_side() -> None:
    """The join after them waits until both have been left."""
    walk = Walk((1, 2), (1, 3), (2, 3), ())
    walk.done(0).done(1, to=(1,)).done(2, to=(3,), right=1)
    assert walk.under_way == [1]
    walk.done(1, to=(1,)).done(1, to=(3,), left=2)
    assert walk.under_way == [3]
    assert walk.token(3).values == {"right": 1, "left": 2}


def test_a_later_round_beats_leftovers_of_an_earlier_one() -> None:
    """A branch that left the loop in its first round waits at the end; the last round's write wins over it."""
    walk = Walk((1,), (2, 3), (1, 4), (4,), ())
    walk.done(0).done(1).done(3, x="first, side").done(2, to=(1,), x="first")
    walk.done(1, x="second").done(3, y="second, side").done(2, to=(4,), y="second")
    assert walk.token(4).values == {"x": "second", "y": "second, side"}


# Isolation and merging.


def test_branches_are_isolated() -> None:
    """A branch sees the state as it was at the fork and its own writes."""
    walk = Walk((1, 2), (3,), (4,), (), ())
    walk.done(0, x=0).done(1, x=1)
    assert walk.token(2).values == {"x": 0}
    assert walk.token(3).values == {"x": 1}


def test_the_branch_later_in_the_cell_wins() -> None:
    """Whichever was first, the write of the branch whose target stands later in the cell stays."""
    for first, second in ((1, 2), (2, 1)):
        walk = Walk((2, 1), (3,), (3,), ())
        walk.done(0, x=0).done(first, x=first).done(second, x=second)
        assert walk.token(3).values == {"x": 1}


def test_a_write_after_the_join_beats_those_of_the_branches() -> None:
    """It comes later, also for a join further down."""
    walk = Walk((1, 2, 3), (4,), (4,), (5,), (5,), ())
    walk.done(0).done(1, x=1).done(2, x=2).done(4, x=4).done(3, y=3)
    assert walk.token(5).values == {"x": 4, "y": 3}


def test_an_older_write_does_not_come_back() -> None:
    """A later branch that did not write the field leaves the earlier branch's write alone."""
    walk = Walk((1, 2), (3,), (3,), ())
    walk.done(0, x=0).done(1, x=1).done(2, y=2)
    assert walk.token(3).values == {"x": 1, "y": 2}


def test_fields_stand_in_an_order_that_timing_does_not_change() -> None:
    """Whoever prints the state prints the same."""
    writes: dict[int, dict[str, Any]] = {1: {"one": 1}, 2: {"two": 2}}
    for first, second in ((1, 2), (2, 1)):
        joined = Walk((1, 2), (3,), (3,), ()).done(0, z=0)
        joined.done(first, **writes[first]).done(second, **writes[second])
        assert list(joined.token(3).values) == ["z", "one", "two"]
        ended = Walk((1, 2), (), ()).done(0, z=0)
        ended.done(first, **writes[first]).done(second, **writes[second])
        assert list(ended.state) == ["z", "one", "two"]


def test_the_state_of_an_ended_branch_is_kept() -> None:
    """The final state is the merge of all branches, however they ended."""
    walk = Walk((1, 2), (3,), (), ())
    walk.done(0, start=0).done(2, x="later in the cell").done(1, x="earlier", y=1).done(3, z=3)
    assert walk.state == {"start": 0, "x": "later in the cell", "y": 1, "z": 3}
    assert not walk.walker.active


def test_flag_after_a_join() -> None:
    """False if the last node of any joined branch said no."""
    walk = Walk((1, 2, 3), (4,), (4,), (4,), ())
    walk.done(0).done(3).done(1, flag=False).done(2)
    assert walk.token(4).flag is False
    assert walk.token(4).special("last_action_success") is False
    walk.done(4)
    assert walk.walker.result().flag is True


# Errors.


def test_errors_stand_in_the_order_of_the_branches() -> None:
    """Not in that of time; what had happened before the fork comes first, once."""
    walk = Walk((1,), (2, 3), (4,), (4,), ())
    walk.error(0, "start", to=(1,)).done(1).error(3, "right", to=(4,)).error(2, "left", to=(4,))
    token = walk.token(4)
    assert token.special("errors") == ["start", "left", "right"]
    assert token.special("error") == "right"


def test_a_failure_parks_what_is_downstream_while_others_run_on() -> None:
    """Nothing below the failed node starts; independent branches go to their ends."""
    walk = Walk((1, 2, 3), (4,), (4,), (5,), (), ())
    walk.done(0).error(1, "broken").done(2, two=2).done(3, three=3)
    assert walk.under_way == [5]
    assert walk.walker.active
    walk.done(5, five=5)
    assert walk.under_way == []
    assert not walk.walker.active
    assert list(walk.walker.waiting) == [4]
    assert walk.state == {"two": 2, "three": 3, "five": 5}
    assert walk.errors == ["broken"]


def test_failures_are_named_in_the_order_of_the_branches() -> None:
    """The first is that of the branch that stands first."""
    walk = Walk((2, 1), (), ())
    walk.done(0).error(1, "one").error(2, "two")
    assert [token.at for token in walk.walker.failed()] == [2, 1]
    assert walk.errors == ["two", "one"]


def test_a_failure_in_a_loop_parks_the_loop() -> None:
    """A round that waits for a failed branch does not start, nor does what comes after the loop."""
    walk = Walk((1,), (2, 3), (1,), (1, 4), ())
    walk.done(0).done(1).error(2, "broken").done(3, to=(1,))
    assert walk.under_way == []
    assert list(walk.walker.waiting) == [1]


def test_a_lonely_failure_is_all_there_is() -> None:
    """Without forks, too, the state so far is kept."""
    walk = Walk((1,), ())
    walk.done(0, x=1).error(1, "broken")
    assert walk.state == {"x": 1}
    assert walk.walker.result().flag is False
    assert not walk.walker.active


# Following a token that is alone.


def test_following_is_the_same_as_completing() -> None:
    """A driver may move a lonely token along single edges itself."""
    walk = Walk((1,), (2,), (1, 3), (4, 5), (), ())
    walk.done(0).done(1)
    assert walk.walker.alone
    walk.walker.follow(walk.token(2), 3)
    walk.done(3)
    assert walk.under_way == [4, 5]
    assert not walk.walker.alone
    walk.done(5)
    assert walk.walker.alone
    walk.error(4, "broken")
    assert walk.walker.running == len(walk.walker.parked) == 1


# Merging, as such.

stamps = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.integers(0, 1), st.sampled_from((-2, -3))),
        st.tuples(st.integers(1, 2), st.integers(0, 1), st.integers(1, 2)),
    ),
    max_size=3,
).map(lambda rest: ((0, 0, 0), *rest))


@st.composite
def branches(draw: st.DrawFn) -> list[Token]:
    """Tokens as one execution could hold them: a write is known by its field and stamp."""
    tokens = []
    for stamp in draw(st.lists(stamps, min_size=1, max_size=5, unique=True)):
        written = draw(st.dictionaries(st.sampled_from("abcd"), stamps, max_size=4))
        values = {field: f"{field} at {at}" for field, at in written.items()}
        errors = tuple(ErrorEntry(at, 0, "n", f"at {at}") for at in sorted(set(written.values())))
        tokens.append(Token(0, values, {}, stamp=stamp, stamps=written, flag=draw(st.booleans()), errors=errors))
    return tokens


def merged(*tokens: Token) -> Token:
    """Like `merge`, but leaves the tokens as they are."""
    copies = [token.child(0, token.stamp) for token in tokens]
    values, written, errors, flag = merge(copies)
    return Token(0, values, {}, stamp=tokens[0].stamp, stamps=written, flag=flag, errors=errors)


def content(token: Token) -> tuple[Any, ...]:
    return token.values, token.stamps, token.errors, token.flag


@pytest.mark.long
@given(branches(), st.randoms(use_true_random=False))
def test_merging_does_not_depend_on_order_or_grouping(tokens: list[Token], rng: Any) -> None:
    """Associative, commutative and idempotent."""
    whole = content(merged(*tokens))
    shuffled = rng.sample(tokens, len(tokens))
    assert content(merged(*shuffled)) == whole
    at = rng.randint(1, len(tokens))
    parts = [merged(*part) for part in (shuffled[:at], shuffled[at:]) if part]
    assert content(merged(*parts)) == whole
    assert content(merged(*tokens, *parts)) == whole


@pytest.mark.long
@given(st.lists(stamps, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_joined_stamp_is_at_least_the_greatest(found: list[Stamp], rng: Any) -> None:
    """What is written after a join beats what was written before, whoever came first."""
    stamp = joined_stamp(found)
    assert stamp >= max(found)
    assert joined_stamp(rng.sample(found, len(found))) == stamp


def test_a_fork_that_comes_together_is_its_parent_again() -> None:
    """One step on; a fork with a branch missing is not."""
    root = (0, 0, 0)
    assert joined_stamp([(root, (0, 0, -2)), (root, (1, 0, -2))]) == ((0, 1, 0),)
    assert joined_stamp([(root, (0, 0, -2), (0, 0, -2)), (root, (1, 0, -2)), (root, (0, 0, -2), (1, 3, -2))]) == (
        (0, 1, 0),
    )
    assert joined_stamp([(root, (0, 0, -3)), (root, (2, 0, -3))]) == (root, (2, 0, -3))
