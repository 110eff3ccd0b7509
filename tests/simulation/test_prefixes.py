"""Prompts that begin alike: what a prefix cache has of them, by hand, and where length order loses by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lengthwise.cli import main
from lengthwise.costs import StepCost
from lengthwise.errors import InputError, UsageError
from lengthwise.simulation.arrivals import at_once, poisson, resampled
from lengthwise.simulation.guesses import exact, of_tau
from lengthwise.simulation.logs import read_log
from lengthwise.simulation.machine import EngineModel
from lengthwise.simulation.policies import POLICIES, policy
from lengthwise.simulation.prefixes import BLOCK_TOKENS, Prefix, PrefixCache, kept_apart
from lengthwise.simulation.simulator import Outcome, simulate
from lengthwise.simulation.study import HIT_RATE, Figures, run
from lengthwise.simulation.workload import Workload

COST = StepCost(1.0, 0.0, read_token_s=0.001)


def workload(prompts: Sequence[int], prefixes: Sequence[Prefix], outputs: Sequence[int]) -> Workload:
    return Workload.of(at_once(len(outputs)), np.array(prompts), np.array(outputs), prefixes=prefixes)


def simulated(work: Workload, name: str = "arrival", **engine: object) -> Outcome:
    model = EngineModel(**{"slots": 1, "cost": COST} | engine)
    return simulate(work, exact(work.output_tokens), policy(name).make(model), model)


class TestCache:
    def test_what_begins_alike_is_there(self):
        """Whole blocks from the beginning, as far as they are the same; a block after another beginning has another
        id."""
        cache = PrefixCache(100 * BLOCK_TOKENS)
        assert cache.read((1, 2, 3), 1600) == 0
        assert cache.read((1, 2, 3), 1600) == 3 * 512
        assert cache.read((1, 2, 4), 1600) == 2 * 512
        assert cache.read((9, 2, 3), 1600) == 0
        assert cache.read((), 100) == 0

    def test_the_last_token_is_always_read(self):
        cache = PrefixCache(100 * BLOCK_TOKENS)
        cache.read((1, 2), 1024)
        assert cache.read((1, 2), 1024) == 1023

    def test_what_was_not_asked_for_the_longest_goes(self):
        """Room for three blocks: 1 is asked for again, so 2 goes for 4."""
        cache = PrefixCache(3 * BLOCK_TOKENS + 511)
        for block in (1, 2, 3, 1, 4):
            cache.read((block,), 600)
        assert [cache.read((block,), 600) for block in (1, 3, 4)] == [512] * 3
        assert cache.read((2,), 600) == 0

    def test_of_one_prompt_the_last_blocks_go_first(self):
        """Of a prompt that is larger than the cache its beginning stays; and of two, the older one's end goes."""
        cache = PrefixCache(2 * BLOCK_TOKENS)
        cache.read((1, 2, 3, 4), 2100)
        assert cache.read((1, 2, 3, 4), 2100) == 2 * 512
        cache.read((8,), 600)
        assert cache.read((1, 2, 3, 4), 2100) == 512


class TestMachine:
    def test_tokens_by_hand(self):
        """Four requests, one after the other: 1,100 tokens read; of 1,100 the 1,024 found; of 700 the 512; then 600
        that nobody had."""
        work = workload([1100, 1100, 700, 600], [(1, 2), (1, 2), (1,), (7,)], [2, 2, 2, 2])
        outcome = simulated(work, prefix_cache_tokens=4096)
        assert outcome.num_cached_tokens == 1024 + 512
        assert outcome.num_read_tokens == 1100 + 76 + 188 + 600
        assert outcome.end_s == pytest.approx(np.cumsum([1.1 + 2, 0.076 + 2, 0.188 + 2, 0.6 + 2]))
        assert outcome.prefix_hit_rate == pytest.approx(1536 / 3500)

    def test_what_is_evicted_is_read_again(self):
        """A cache of one prompt, two that take turns: nothing is ever found."""
        work = workload([600] * 4, [(1,), (2,), (1,), (2,)], [1] * 4)
        assert simulated(work, prefix_cache_tokens=512).num_cached_tokens == 0
        assert simulated(work, prefix_cache_tokens=1024).num_cached_tokens == 2 * 512

    @pytest.mark.parametrize("chunk_tokens", [None, 64])
    def test_who_enters_together_shares(self, chunk_tokens: int | None):
        """Two rows with one beginning, read in one pass or in chunks: it is read once, and each has its own tokens in
        the memory."""
        work = workload([600, 600], [(1,), (1,)], [3, 3])
        together = simulated(work, slots=2, chunk_tokens=chunk_tokens, prefix_cache_tokens=512, kv_tokens=5000)
        assert (together.num_read_tokens, together.num_cached_tokens) == (688, 512)
        assert simulated(work, slots=2, chunk_tokens=chunk_tokens).num_read_tokens == 1200

    def test_memory_holds_what_was_found(self):
        """The rows' own memory is not shared: what enters, and what is put back, is as without a prefix cache."""
        work = workload([600, 600], [(1,), (1,)], [90, 90])
        alone, found = (simulated(work, slots=2, kv_tokens=1330, prefix_cache_tokens=num) for num in (0, 512))
        assert alone.num_put_back == found.num_put_back == 1
        assert found.num_read_tokens == alone.num_read_tokens - 2 * 512  # when it came, and when it came back

    @pytest.mark.parametrize("name", POLICIES)
    @pytest.mark.parametrize("kv_tokens", [float("inf"), 9000.0])
    def test_without_a_cache_it_is_as_before(self, name: str, kv_tokens: float):
        """What prompts begin with changes nothing, to the last bit, where no cache is; nor does a cache where none
        begins alike. And every policy ends all with one."""
        rng = np.random.default_rng(5)
        num = 80
        prompts, outputs = rng.integers(1, 2000, num), rng.integers(1, 60, num)
        work = Workload.of(poisson(num, 0.2, rng), prompts, outputs)
        prefixes = tuple(tuple(range(i % 3, i % 3 + tokens // 512)) for i, tokens in enumerate(prompts.tolist()))
        guess = of_tau(outputs, 0.5, rng)
        chosen = policy(name)
        model = chosen.on(EngineModel(4, kv_tokens, cost=COST))
        cached = replace(model, prefix_cache_tokens=50_000)

        def outcome(work: Workload, model: EngineModel) -> Outcome:
            return simulate(work, guess, chosen.make(model), model)

        before = outcome(work, model)
        alike, different = replace(work, prefixes=prefixes), replace(work, prefixes=kept_apart(prefixes, 1))
        others = [outcome(alike, model)]
        if not before.num_put_back:  # a row that is put back finds its own prompt
            others.append(outcome(different, cached))
        for other in others:
            np.testing.assert_array_equal(before.start_s, other.start_s)
            np.testing.assert_array_equal(before.end_s, other.end_s)
        shared = outcome(alike, cached)
        assert shared.num_cached_tokens > 0
        assert np.isfinite(shared.end_s).all()


class TestLengthOrderLoses:
    def test_groups_that_come_together(self):
        """32 groups of eight, each with its own eight blocks, in a cache of four groups' beginnings: arrival order
        finds seven of eight, shortest first nearly nothing, and is later with everything."""
        rng = np.random.default_rng(0)
        prefixes = [tuple(8 * group + i for i in range(8)) for group in range(32) for _ in range(8)]
        outputs = np.clip(rng.lognormal(4, 0.8, 256), 1, 400).astype(int)
        work = workload([8 * 512 + 100] * 256, prefixes, outputs)
        engine = EngineModel(8, prefix_cache_tokens=4 * 8 * 512, cost=StepCost(0.02, 0.0005, read_token_s=0.0004))
        first, shortest = (run(name, work, exact(outputs), engine) for name in ("arrival", "shortest"))
        assert first["prefix_hit_rate"] > 0.8
        assert shortest["prefix_hit_rate"] < 0.3
        assert shortest["mean_latency_s"] > 1.2 * first["mean_latency_s"]
        assert shortest["makespan_s"] > 1.5 * first["makespan_s"]
        without = replace(engine, prefix_cache_tokens=0)
        first, shortest = (run(name, work, exact(outputs), without) for name in ("arrival", "shortest"))
        assert shortest["mean_latency_s"] < first["mean_latency_s"], "it is the cache that makes the difference"


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class TestLogs:
    def test_whole_blocks_by_number_or_text(self, tmp_path: Path):
        """An id stands for 512 tokens; the last, which the prompt does not fill, is left out. Sorted with its row."""
        rows = [
            {"arrival_s": 1, "prompt_tokens": 1030, "output_tokens": 1, "hash_ids": ["a", "b", "c"]},
            {"arrival_s": 0, "prompt_tokens": 1024, "output_tokens": 2, "hash_ids": ["a", 7]},
            {"arrival_s": 2, "prompt_tokens": 90, "output_tokens": 3, "hash_ids": []},
        ]
        (tmp_path / "log").write_text(lines(*rows))
        work = read_log(tmp_path / "log", keeps_prefixes=True).workload
        assert work.prefixes == ((0, 2), (0, 1), ())
        assert read_log(tmp_path / "log").workload.prefixes is None

    @pytest.mark.parametrize(
        ("row", "told"),
        [
            ({}, "line 2 has no hash_ids: a prefix cache"),
            ({"hash_ids": "a"}, "hash_ids is 'a'; a list of whole numbers or texts"),
            ({"hash_ids": [1.5]}, r"hash_ids is \[1.5\]; a list"),
            ({"hash_ids": [1, 2, 3]}, "has 3 hash_ids for 1000 prompt tokens; one for each 512"),
        ],
    )
    def test_what_cant_be_is_told(self, tmp_path: Path, row: dict[str, object], told: str):
        whole = {"prompt_tokens": 1000, "output_tokens": 1}
        (tmp_path / "log").write_text(lines(whole | {"hash_ids": [4, 5]}, whole | row))
        with pytest.raises(InputError, match=told):
            read_log(tmp_path / "log", keeps_prefixes=True)

    def test_draws_share_within_a_stretch(self):
        """What is drawn twice is not found in the cache for that."""
        num = 200
        work = Workload.of(np.arange(num) * 1.0, 600, np.full(num, 3), prefixes=[(i,) for i in range(num)])
        drawn = resampled(work, num, np.random.default_rng(0))
        assert len(set(drawn.rows.tolist())) < num
        assert len(set(drawn.prefixes)) == num
        groups = replace(work, prefixes=tuple((i // 10,) for i in range(num)))
        assert len(set(resampled(groups, num, np.random.default_rng(0)).prefixes)) < 0.3 * num


class TestCommand:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        """Groups of eight that come together, some seconds apart, faster than they are answered."""
        rng = np.random.default_rng(1)
        lengths = np.clip(rng.lognormal(4, 0.8, 320), 1, 400).astype(int).tolist()
        rows = [
            {
                "arrival_s": 2.0 * (i // 8),
                "prompt_tokens": 8 * 512 + 50,
                "output_tokens": lengths[i],
                "hash_ids": [1000 * (i // 8) + block for block in range(8)],
            }
            for i in range(320)
        ]
        (tmp_path / "log.jsonl").write_text(lines(*rows))
        (tmp_path / "cost.json").write_text(
            json.dumps({"step_fixed_s": 0.02, "step_row_s": 0.0005, "read_token_s": 4e-4})
        )
        return tmp_path / "log.jsonl"

    def said(self, log: Path, capsys, *arguments: str) -> str:
        quick = ["--slots", "8", "--seeds", "3", "--predictor", "oracle", "--policy", "shortest"]
        assert main(["simulate", str(log), *quick, *arguments]) == 0
        return capsys.readouterr().out

    def test_a_loss_is_no_gain(self, log: Path, capsys):
        """The verdict says so, and the page why and what to do; without the cache the same order is the better one."""
        cost = ("--cost", str(log.parent / "cost.json"))
        found = json.loads(self.said(log, capsys, *cost, "--prefix-cache-tokens", "16384", "--json"))
        assert found["verdict"] == "no_gain"
        assert found["policies"]["shortest"]["mean_ratio"]["mean"] > 1.05
        in_order, by_length = (found["policies"][name]["prefix_hit_rate"] for name in ("arrival", "shortest"))
        assert by_length < in_order - 0.1
        page = self.said(log, capsys, *cost, "--prefix-cache-tokens", "16384")
        assert page.startswith("**No gain expected.**")
        assert "length order parts requests that begin alike; keep arrival order, or a larger cache" in page
        assert "| in the prefix cache |" in page
        without = json.loads(self.said(log, capsys, *cost, "--json"))
        assert without["policies"]["shortest"]["mean_ratio"]["mean"] < 1
        assert "prefix_hit_rate" not in without["policies"]["arrival"]

    def test_reading_that_costs_nothing_is_told(self, log: Path, capsys):
        assert "a prefix cache saves nothing" in self.said(log, capsys, "--prefix-cache-tokens", "16384")

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--prefix-cache-tokens", "-1"], "prefix_cache_tokens is -1"),
            (["--prefix-cache-tokens", "511"], "whole blocks of prompts, so 512 or more"),
            (["--prefix-cache-tokens", "many"], "'--prefix-cache-tokens': Input should be a valid integer"),
        ],
    )
    def test_wrong_use_is_told(self, log: Path, arguments: list[str], told: str, capsys):
        assert main(["simulate", str(log), *arguments]) == 2
        assert told in capsys.readouterr().err

    def test_a_log_without_prefixes_is_told(self, tmp_path: Path, capsys):
        path = tmp_path / "log.csv"
        path.write_text("arrival_s,input_tokens,output_tokens\n0,20,5\n1,20,6\n")
        assert main(["simulate", str(path), "--prefix-cache-tokens", "4096"]) == 2
        assert "line 2 has no hash_ids: a prefix cache (--prefix-cache-tokens) needs" in capsys.readouterr().err


def test_shares_stay_between_0_and_1():
    assert Figures({HIT_RATE: np.array([0.1, 0.9])}).ci95(HIT_RATE) == (0, 1)


def test_a_cache_needs_prefixes():
    with pytest.raises(UsageError, match="not known what prompts begin with"):
        simulated(Workload.of(at_once(1), 5, np.array([1])), prefix_cache_tokens=512)
