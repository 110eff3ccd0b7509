"""Batch sizes: memory, the paper's table with its carry-up rule, a fixed number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.errors import UsageError
from lengthwise.scheduling.rows import Rows
from lengthwise.scheduling.sizing import FixedSizing, MemorySizing, TableSizing, reserved_tokens
from tests.scheduling.worlds import patient

MUCH = (1_000_000, math.inf)  # free rows, free memory


def rows(granted: list[int], *, prompt_tokens: int = 10, num_tokens: int = 0, max_tokens: int = 512) -> Rows:
    """Rows that are predicted and granted this many more tokens."""
    num, more = len(granted), np.array(granted)
    no = np.zeros(num, bool)
    same = [np.full(num, value) for value in (prompt_tokens, num_tokens, max_tokens)]
    return Rows(np.array([f"r{i}" for i in range(num)], object), *same, more, more, no, no)


def all_sizes(sizing, granted: list[int], free_rows: float = 1_000_000, free_kv_tokens: float = math.inf) -> list[int]:
    """Sizes of the batches of a whole group."""
    sizes = []
    while granted:
        sizes.append(sizing(rows(granted), free_rows, free_kv_tokens))
        granted = granted[sizes[-1] :]
    return sizes


class TestMemory:
    def test_takes_all_that_the_engine_has_rows_for(self):
        """Without a limit of memory the free rows decide."""
        assert all_sizes(MemorySizing(), [100] * 10, free_rows=4) == [4, 4, 2]

    def test_counts_prompt_and_the_batch_s_cap_of_each_row(self):
        """Three rows of 10 prompt tokens beside a row that is granted 90 reserve 300 tokens, not 10 + 90 + 2 × 20."""
        assert MemorySizing()(rows([90, 10, 10]), 8, 300) == 3
        assert MemorySizing()(rows([90, 10, 10]), 8, 299) == 2
        assert MemorySizing()(rows([10, 10, 90]), 8, 299) == 2

    def test_a_row_never_reserves_more_than_its_limit(self):
        """Rows with a limit of 50 reserve 60 each, though another's grant is larger."""
        assert MemorySizing()(rows([50, 50, 50], max_tokens=50), 8, 180) == 3
        assert list(reserved_tokens(rows([400, 50], max_tokens=50))) == [60, 120]

    def test_counts_tokens_that_are_written(self):
        """A row that goes on holds its own tokens from the start: 10 + 30 + 20."""
        assert MemorySizing()(rows([20, 20], num_tokens=30), 8, 120) == 2
        assert MemorySizing()(rows([20, 20], num_tokens=30), 8, 119) == 1

    def test_one_row_is_always_allowed(self):
        """What fits nowhere runs alone, whatever the sizing."""
        for sizing in (MemorySizing(), FixedSizing(5), TableSizing()):
            assert sizing(rows([100, 100]), 1, 1.0) == 1
            assert sizing(rows([100, 100]), 0, 0.0) == 1

    @patient
    @given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(1, 20), st.integers(1, 5000))
    def test_what_it_takes_fits(self, granted: list[int], free_rows: int, free_kv_tokens: int):
        """Caps as they will be given stay within the memory, and one row more would break a limit (or the bound)."""
        num = MemorySizing()(rows(granted), free_rows, free_kv_tokens)
        assert num <= free_rows

        def reserved(n: int) -> int:
            return n * (10 + max(granted[:n]))

        assert num == 1 or reserved(num) <= free_kv_tokens
        assert num in (free_rows, len(granted)) or reserved(num + 1) > free_kv_tokens


class TestFixed:
    def test_gives_batches_of_its_number(self):
        """The last batch has what is left."""
        assert all_sizes(FixedSizing(16), [50] * 40) == [16, 16, 8]

    def test_is_checked_against_memory(self):
        """16 rows of 110 tokens don't fit 1,000."""
        assert FixedSizing(16)(rows([100] * 40), 64, 1000) == 9

    def test_refuses_an_empty_batch(self):
        """A size of 0 is a mistake of the caller."""
        with pytest.raises(UsageError, match="num_rows is 0"):
            FixedSizing(0)


class TestTable:
    @pytest.mark.parametrize(
        ("predicted", "size"),
        [(1, 256), (50, 256), (51, 128), (100, 128), (150, 64), (200, 32), (201, 16), (10_000, 16)],
    )
    def test_sizes_are_the_paper_s(self, predicted: int, size: int):
        """Up to 50 tokens 256 rows, 100: 128, 150: 64, 200: 32, above: 16."""
        assert TableSizing().size(predicted) == size
        assert all_sizes(TableSizing(), [predicted] * 300)[0] == size

    def test_small_last_batches_move_up(self):
        """Worked by hand: 300 up to 50 give 256 and 44 over, fewer than 128, so they join the 20 up to 100: 64, just
        enough to stay. 70 up to 150 give 64 and 6, which join the 10 up to 200: 16, enough. 20 up to 250 give 16 and
        4, which skip the empty bins and join the 5 up to 400; the top bin keeps its 9."""
        group = [40] * 300 + [90] * 20 + [140] * 70 + [190] * 10 + [240] * 20 + [400] * 5
        assert all_sizes(TableSizing(), group) == [256, 64, 64, 16, 16, 9]

    def test_a_large_last_batch_stays(self):
        """128 of a bin of 256 stay, 127 move up; 16 of a bin of 32 stay, 15 move up."""
        assert all_sizes(TableSizing(), [50] * 128 + [100]) == [128, 1]
        assert all_sizes(TableSizing(), [50] * 128 + [300]) == [128, 1]
        assert all_sizes(TableSizing(), [50] * 127 + [100]) == [128]
        assert all_sizes(TableSizing(), [200] * 16 + [300]) == [16, 1]
        assert all_sizes(TableSizing(), [200] * 15 + [300]) == [16]

    def test_what_moved_up_may_fill_several_batches(self):
        """127 move up into 200 rows of the next bin: 327 rows are 128, 128 and 71, which stay."""
        assert all_sizes(TableSizing(), [50] * 127 + [100] * 200) == [128, 128, 71]

    def test_what_skips_bins_runs_in_the_sizes_of_its_new_bin(self):
        """127 that join a row above 200 tokens run in batches of 16, as the rule has it."""
        assert all_sizes(TableSizing(), [50] * 127 + [300]) == [16] * 8

    def test_is_checked_against_memory(self):
        """The table was made for one card: 256 rows of 60 tokens don't fit 600, ten do."""
        assert all_sizes(TableSizing(), [50] * 25, free_kv_tokens=600) == [10, 10, 5]
        assert all_sizes(TableSizing(), [50] * 25, free_rows=12) == [12, 12, 1]

    @patient
    @given(st.lists(st.integers(1, 512), min_size=1, max_size=400).map(sorted))
    def test_agrees_with_the_rule_told_bin_by_bin(self, predicted: list[int]):
        """The same sizes as when whole bins are filled and emptied one after the other."""
        assert all_sizes(TableSizing(), predicted) == sizes_bin_by_bin(predicted)

    @pytest.mark.parametrize("wrong", [{"above": 0}, {"min_rows": 0}, {"bin_tokens": 0}, {"sizes": ((50, 0),)}])
    def test_refuses_empty_batches(self, wrong: dict):
        """Zeros anywhere are a mistake of the caller."""
        with pytest.raises(UsageError, match="below 1"):
            TableSizing(**wrong)

    def test_refuses_lengths_out_of_order(self):
        """The first length that fits counts, so they must rise."""
        with pytest.raises(UsageError, match="rising order"):
            TableSizing(sizes=((100, 128), (50, 256)))


def sizes_bin_by_bin(predicted: list[int]) -> list[int]:
    """The paper's rule as a plain loop over bins of 50 that are counted beforehand."""
    bins: dict[int, int] = {}
    for length in predicted:
        bins[math.ceil(length / 50) * 50] = bins.get(math.ceil(length / 50) * 50, 0) + 1
    table, sizes = {50: 256, 100: 128, 150: 64, 200: 32}, []
    carried = 0
    for top in sorted(bins):
        size, num = table.get(top, 16), bins[top] + carried
        sizes += [size] * (num // size)
        carried = num % size
        if carried and (top == max(bins) or carried >= max(size // 2, 16)):
            sizes.append(carried)
            carried = 0
    return sizes
