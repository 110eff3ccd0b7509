"""The ready-made schedulers."""

from __future__ import annotations

import pytest

from lengthwise.errors import UsageError
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.grouping import GroupedScheduler, GroupingConfig
from lengthwise.scheduling.named import NAMES, default, make, paper
from lengthwise.scheduling.sizing import MemorySizing, TableSizing
from tests.scheduling.compare_schedules import World


def test_every_name_makes_a_fresh_scheduler():
    """Two runs never share one."""
    for name in NAMES:
        assert make(name, batch_size=4) is not make(name, batch_size=4)


def test_the_default_is_what_the_configuration_says():
    """Sorted, sizes from memory, cut answers go on."""
    assert default().config == GroupingConfig()
    assert GroupingConfig().sizing == MemorySizing()
    assert GroupingConfig().on_cut == "continue"
    assert GroupingConfig().fcr


def test_the_paper_s_settings_are_the_paper_s():
    """Groups of 256, shortest first, bins of 50, its table, failures written again at the end of their group."""
    config = paper().config
    assert (config.group_size, config.bin_tokens, config.longest_first) == (256, 50, False)
    assert (config.on_cut, config.groups_per_collection, config.sizing) == ("restart", 1, TableSizing())


def test_the_paper_s_caps_fail_as_often_as_the_paper_s():
    """Its repository reports that 16.5 % were run again."""
    engine = World.drawn(2048, tau=0.6, seed=0).play(paper(), max_rows=256)
    assert len(engine.num_cuts) / 2048 == pytest.approx(0.165, abs=0.03)


@pytest.mark.parametrize("name", ["default", "paper"])
def test_an_engine_that_can_not_cut_gets_no_caps(name: str):
    """`can_cap` False turns failure collection off and nothing else."""
    scheduler = make(name, batch_size=4, can_cap=False)
    assert isinstance(scheduler, GroupedScheduler)
    assert not scheduler.config.fcr


def test_arrival_order_takes_the_engine_s_batch_size():
    """The baseline has the same rows as the others."""
    scheduler = make("arrival", batch_size=7)
    assert isinstance(scheduler, ArrivalScheduler)
    assert scheduler.batch_size == 7


def test_an_unknown_name_is_refused():
    """With the names that there are."""
    with pytest.raises(UsageError, match=r"'shortest'.*default, paper, arrival"):
        make("shortest", batch_size=4)
