"""Groups, order, caps, and what becomes of cut rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lengthwise.errors import UsageError
from lengthwise.estimates import LengthEstimates
from lengthwise.scheduling.grouping import GroupedScheduler, GroupingConfig
from lengthwise.scheduling.sizing import FixedSizing, TableSizing
from lengthwise.types import Start, View, WaitingRequest
from tests.scheduling.worlds import curve

LIMIT = 100


def scheduler(**changes) -> GroupedScheduler:
    return GroupedScheduler(GroupingConfig(**{"sizing": FixedSizing(2), "max_cuts": 2, **changes}))


def add(scheduler: GroupedScheduler, lengths: dict[str, float], num_tokens: int = 0, num_cuts: int = 0) -> None:
    """Requests whose predicted lengths are certain, with `LIMIT` as their limit."""
    requests = [WaitingRequest(name, 10, LIMIT, num_tokens, 0.0, num_cuts) for name in lengths]
    estimates = LengthEstimates.certain(list(lengths.values())).given(num_tokens).capped(LIMIT)
    scheduler.add(requests, estimates)


def decide(scheduler: GroupedScheduler, free_kv_tokens: float = math.inf) -> list[Start]:
    return scheduler.decide(View(0.0, {}, {}, 100, free_kv_tokens))


def batches(scheduler: GroupedScheduler) -> list[str]:
    """Ids of the batches until nothing waits; "!" follows a row that may reach its limit."""
    found: list[str] = []
    while starts := decide(scheduler):
        found.append("".join(start.id + "!" * (start.cap == LIMIT) for start in starts))
    return found


class TestOrder:
    def test_the_longest_predicted_goes_first(self):
        """Batches of two from the longest down; the last of all is not cut."""
        grouped = scheduler()
        add(grouped, {"a": 10, "b": 40, "c": 20, "d": 30, "e": 50})
        assert batches(grouped) == ["eb", "dc", "a!"]

    def test_or_the_shortest(self):
        """As in the paper."""
        grouped = scheduler(longest_first=False, fcr=False)
        add(grouped, {"a": 10, "b": 40, "c": 20, "d": 30, "e": 50})
        assert batches(grouped) == ["a!c!", "d!b!", "e!"]

    def test_ties_keep_arrival_order(self):
        """Either way."""
        for longest_first in (True, False):
            grouped = scheduler(longest_first=longest_first, fcr=False)
            add(grouped, dict.fromkeys("qwerty", 30))
            assert batches(grouped) == ["q!w!", "e!r!", "t!y!"]

    def test_binning_makes_ties(self):
        """12 and 49 are both 50."""
        grouped = scheduler(bin_tokens=50, longest_first=False, fcr=False)
        add(grouped, {"a": 49, "b": 60, "c": 12})
        assert batches(grouped) == ["a!c!", "b!"]

    def test_groups_follow_arrival(self):
        """A group is sorted by itself; what came later waits for the next, also when it is added in between."""
        grouped = scheduler(group_size=3, fcr=False)
        add(grouped, {"a": 10, "b": 20, "c": 30, "d": 90})
        assert [start.id for start in decide(grouped)] == ["c", "b"]
        add(grouped, {"e": 95, "f": 97, "g": 99})
        assert batches(grouped) == ["a!", "f!e!", "d!", "g!"]

    def test_one_group_of_all_that_waits(self):
        """`group_size` None; what is added while it runs forms the next."""
        grouped = scheduler(group_size=None, fcr=False)
        add(grouped, {"a": 10, "b": 20})
        add(grouped, {"c": 30})
        assert [start.id for start in decide(grouped)] == ["c", "b"]
        add(grouped, {"d": 99})
        assert batches(grouped) == ["a!", "d!"]

    def test_order_and_cap_may_use_different_quantiles(self):
        """A wide estimate may have the smaller median and the larger 90 % quantile."""
        narrow, wide = 1.0 * (np.arange(69) < 20), curve(15)
        for quantile, first in ((0.5, "narrow"), (0.9, "wide")):
            grouped = scheduler(order_quantile=quantile)
            requests = [WaitingRequest(name, 10, LIMIT) for name in ("wide", "narrow")]
            grouped.add(requests, LengthEstimates.from_survival([wide, narrow]).capped(LIMIT))
            assert decide(grouped)[0].id == first


class TestCaps:
    def test_a_batch_runs_to_its_longest_predicted_length(self):
        """All rows of a batch may go on as long as the longest of them is expected to."""
        grouped = scheduler()
        add(grouped, {"a": 10, "b": 40, "c": 20, "d": 30})
        assert decide(grouped) == [Start("b", 40), Start("d", 40)]

    def test_caps_are_rounded_up_to_the_bin_and_down_to_the_limit(self):
        """41 becomes 50, 90 the limit of 100."""
        grouped = scheduler(bin_tokens=50, sizing=FixedSizing(1))
        add(grouped, {"a": 41, "b": 90, "c": 1})
        assert [decide(grouped)[0].cap for _ in range(2)] == [100, 50]

    def test_a_row_is_not_granted_more_than_it_may_have(self):
        """A limit of 60 is no reason to let the batch run to 100, the end of its bin."""
        grouped = scheduler(bin_tokens=50)
        requests = [WaitingRequest("a", 10, 60), WaitingRequest("b", 10, LIMIT), WaitingRequest("c", 10, LIMIT)]
        grouped.add(requests, LengthEstimates.certain([60, 20, 20]))
        assert decide(grouped) == [Start("a", 60), Start("b", 60)]

    def test_caps_count_the_whole_answer(self):
        """A row that goes on is granted its predicted rest (20), and so is the neighbour that has 10 tokens."""
        grouped = scheduler()
        add(grouped, {"a": 40}, num_tokens=20, num_cuts=1)
        add(grouped, {"b": 25}, num_tokens=10, num_cuts=1)
        add(grouped, {"c": 11}, num_tokens=10, num_cuts=1)
        assert decide(grouped) == [Start("a", 40), Start("b", 30)]

    def test_the_last_batch_is_not_cut(self):
        """There would be nothing to run beside what it left; but only if the memory holds all limits."""
        for free_kv_tokens, cap in ((220, LIMIT), (219, 40)):
            grouped = scheduler()
            add(grouped, {"a": 10, "b": 40})
            assert [start.cap for start in decide(grouped, free_kv_tokens)] == [cap, cap]

    def test_a_batch_is_not_the_last_while_anything_waits(self):
        """Not before the next group, nor while cut rows are collected."""
        grouped = scheduler(group_size=2)
        add(grouped, {"a": 40, "b": 40, "c": 40})
        assert [start.cap for start in decide(grouped)] == [40, 40]
        add(grouped, {"d": 80}, num_tokens=40, num_cuts=1)
        assert [start.cap for start in decide(grouped)] == [40]
        assert [start.cap for start in decide(grouped)] == [LIMIT]

    def test_the_paper_cuts_its_last_batch_too(self):
        """Where cut answers are written again, the rule is the paper's."""
        grouped = scheduler(on_cut="restart")
        add(grouped, {"a": 10, "b": 40})
        assert [start.cap for start in decide(grouped)] == [40, 40]

    def test_without_failure_collection_there_are_none(self):
        """`fcr` False: every row may reach its own limit."""
        grouped = scheduler(fcr=False)
        add(grouped, dict.fromkeys("abc", 5))
        assert batches(grouped) == ["a!b!", "c!"]


class TestCutRows:
    def test_go_on_in_an_order_of_their_own(self):
        """By remaining length: 30 more go before 20 more, though the whole answers stand the other way round."""
        grouped = scheduler(sizing=FixedSizing(1))
        add(grouped, {"a": 80}, num_tokens=60, num_cuts=1)
        add(grouped, {"b": 60}, num_tokens=30, num_cuts=1)
        assert decide(grouped) == [Start("b", 60)]

    def test_start_again_with_the_full_limit(self):
        """The paper's recomputation: what was written is thrown away, in the order in which it was cut."""
        grouped = scheduler(on_cut="restart")
        for name, num_tokens in {"a": 30, "b": 60, "c": 10}.items():
            add(grouped, {name: 80}, num_tokens=num_tokens, num_cuts=1)
        assert decide(grouped) == [Start("a", LIMIT, restart=True), Start("b", LIMIT, restart=True)]

    def test_keep_their_own_restart_in_any_order(self):
        """The longest limit goes first; the row that wrote nothing has nothing to throw away, wherever it stands."""
        grouped = scheduler(on_cut="restart")
        requests = [WaitingRequest("a", 10, 50, 5, num_cuts=1), WaitingRequest("b", 10, 70, 0, num_cuts=1)]
        grouped.add(requests, LengthEstimates.unknown(2))
        assert decide(grouped) == [Start("b", 70), Start("a", 50, restart=True)]

    def test_have_nothing_to_throw_away_before_their_first_token(self):
        """Cut by the engine before it wrote anything: no restart to count."""
        grouped = scheduler(on_cut="restart")
        add(grouped, {"a": 80}, num_tokens=0, num_cuts=1)
        assert decide(grouped) == [Start("a", LIMIT)]

    def test_have_their_full_limit_after_max_cuts(self):
        """With `max_cuts` 2 the second cut is the last."""
        for num_cuts, cap in ((1, 40), (2, LIMIT)):
            grouped = scheduler(sizing=FixedSizing(1))
            add(grouped, {"a": 40, "b": 30}, num_tokens=20, num_cuts=num_cuts)
            assert decide(grouped) == [Start("a", cap)]

    def test_wait_for_some_groups_of_new_ones(self):
        """Collected until `groups_per_collection` groups have run, then all of them go before the next."""
        grouped = scheduler(group_size=2, groups_per_collection=2, fcr=False)
        add(grouped, dict.fromkeys("abcdefgh", 5))
        found = []
        for number in range(6):
            found.append("".join(start.id for start in decide(grouped)))
            if number < 3:
                add(grouped, {str(number): 50}, num_tokens=10, num_cuts=1)
        assert found == ["ab", "cd", "01", "ef", "gh", "2"]

    def test_do_not_wait_when_nothing_new_does(self):
        """The end of a job."""
        grouped = scheduler(groups_per_collection=100)
        add(grouped, {"a": 5})
        decide(grouped)
        add(grouped, {"a": 50}, num_tokens=5, num_cuts=1)
        assert decide(grouped) == [Start("a", LIMIT)]


class TestRemove:
    def test_what_is_removed_does_not_start(self):
        """From new ones, from the group that runs, and from cut ones; unknown ids are passed over."""
        grouped = scheduler(group_size=4, fcr=False)
        add(grouped, dict.fromkeys("abcdefg", 5))
        add(grouped, dict.fromkeys("xyz", 50), num_tokens=10, num_cuts=1)
        decide(grouped)
        grouped.remove(["c", "f", "y", "never seen"])
        assert batches(grouped) == ["d!", "e!g!", "x!z!"]

    def test_all_may_be_removed(self):
        """Then nothing starts."""
        grouped = scheduler()
        add(grouped, dict.fromkeys("abc", 5))
        grouped.remove("abc")
        assert decide(grouped) == []


class TestOddInput:
    def test_nothing_is_added(self):
        """An empty list is no request."""
        grouped = scheduler()
        grouped.add([], LengthEstimates.unknown(0))
        assert decide(grouped) == []

    @pytest.mark.parametrize("estimates", ["not limited", "nan", "rising"])
    def test_estimates_that_say_nothing_cut_nothing(self, estimates: str):
        """Estimates without a limit, or broken ones, give the request's own limit as cap, and no error."""
        curves = {"not limited": np.ones(69), "nan": np.full(69, np.nan), "rising": np.linspace(0, 1, 69)}[estimates]
        grouped = scheduler()
        grouped.add([WaitingRequest(name, 10, LIMIT) for name in "abc"], LengthEstimates.from_survival([curves] * 3))
        assert batches(grouped) == ["a!b!", "c!"]

    def test_an_estimate_below_what_is_written_grants_a_token(self):
        """A late estimate of 10 for a row that has 20: the cap leaves room to go on, and the row has more cuts."""
        grouped = scheduler(sizing=FixedSizing(1))
        requests = [WaitingRequest(name, 10, LIMIT, 20, num_cuts=1) for name in "ab"]
        grouped.add(requests, LengthEstimates.certain([10, 10]))
        assert decide(grouped) == [Start("a", 21)]

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"group_size": 0}, "group_size is 0"),
            ({"bin_tokens": 0}, "bin_tokens is 0"),
            ({"max_cuts": 0}, "max_cuts is 0"),
            ({"groups_per_collection": 0}, "groups_per_collection is 0"),
            ({"order_quantile": 0.0}, "order_quantile is 0.0"),
            ({"cap_quantile": float("nan")}, "cap_quantile is nan"),
            ({"on_cut": "stop"}, "on_cut is 'stop'"),
            ({"sizing": TableSizing()}, "longest_first=False"),
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, wrong: dict, message: str):
        """With the name, the value and what would be right."""
        with pytest.raises(UsageError, match=message):
            GroupingConfig(**wrong)


def test_a_view_says_nothing_new():
    """Decisions come from what was added, not from the view's mappings."""
    grouped = scheduler()
    add(grouped, {"a": 5})
    assert grouped.decide(View(0.0, {"ghost": WaitingRequest("ghost", 1, 1)}, {}, 10)) == [Start("a", LIMIT)]
