"""The ready-made schedulers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lengthwise.errors import UsageError
from lengthwise.scheduling.arrival import ArrivalScheduler
from lengthwise.scheduling.grouping import GroupedScheduler, GroupingConfig
from lengthwise.scheduling.named import NAMES, grouped, make, paper, refill
from lengthwise.scheduling.optimal import PartitionScheduler
from lengthwise.scheduling.refill import RefillConfig, RefillScheduler
from lengthwise.scheduling.sizing import MemorySizing, TableSizing
from lengthwise.types import Capabilities
from tests.scheduling.compare_schedules import World

ABLE = Capabilities(max_running=4)


def test_every_name_makes_a_fresh_scheduler():
    """Two runs never share one."""
    for name in NAMES:
        assert make(name, ABLE) is not make(name, ABLE)


def test_the_default_refills_where_the_engine_can():
    """And else sorts static batches."""
    assert isinstance(make("default", ABLE), RefillScheduler)
    assert isinstance(make("default", replace(ABLE, can_refill=False)), GroupedScheduler)


def test_the_ready_made_are_what_the_configurations_say():
    """Sorted, sizes from memory, cut answers go on."""
    assert refill().config == RefillConfig()
    assert grouped().config == GroupingConfig()
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


@pytest.mark.parametrize("missing", ["can_cut", "can_continue"])
@pytest.mark.parametrize("name", ["grouped", "optimal", "paper"])
def test_an_engine_that_can_not_cut_and_continue_gets_no_caps(name: str, missing: str):
    """Failure collection is off, and nothing else."""
    scheduler = make(name, replace(ABLE, **{missing: False}))
    assert isinstance(scheduler, GroupedScheduler | PartitionScheduler)
    assert scheduler.config == replace(make(name, ABLE).config, fcr=False)


@pytest.mark.parametrize("missing", [None, "makes_room", "can_continue"])
def test_memory_is_promised_twice_only_where_the_engine_makes_room(missing: str | None):
    """It must give rows back when it is full, and go on with them later; else each reserves its limit."""
    able = replace(ABLE, makes_room=True)
    scheduler = make("refill", replace(able, **{missing: False}) if missing else able)
    assert isinstance(scheduler, RefillScheduler)
    assert scheduler.config.memory == ("limits" if missing else "expected")


def test_arrival_order_takes_the_engine_s_batch_size():
    """The baseline has the same rows as the others."""
    scheduler = make("arrival", Capabilities(max_running=7))
    assert isinstance(scheduler, ArrivalScheduler)
    assert scheduler.batch_size == 7


def test_an_unknown_name_is_refused():
    """With the names that there are."""
    with pytest.raises(UsageError, match=r"'shortest'.*default, refill, grouped, optimal, paper, arrival"):
        make("shortest", ABLE)
