"""Logs: the formats that traces are published in, and clear words for what can't be read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lengthwise.errors import InputError
from lengthwise.simulation.logs import read_log

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
SERVEGEN = "arrival_s,client,input_tokens,output_tokens\n"
MIRROR = Path(os.environ.get("LENGTHWISE_DATA_MIRROR", "../shared/data"))


def wrote(folder: Path, text: str | bytes, name: str = "log") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class TestFormats:
    def test_azure(self, tmp_path: Path):
        """Dates with seven decimals; times count from the first request."""
        text = AZURE + "2023-11-16 23:59:59.5000000,374,44\n2023-11-17 00:00:01.7500009,396,109\n"
        work = read_log(wrote(tmp_path, text)).workload
        assert work.arrival_s == pytest.approx([0, 2.25])
        assert work.prompt_tokens.tolist() == [374, 396]
        assert work.output_tokens.tolist() == [44, 109]
        assert (work.max_tokens == 128).all(), "a limit that cuts nothing"

    def test_mooncake(self, tmp_path: Path):
        """Times in milliseconds."""
        rows = [{"timestamp": at, "input_length": 5, "output_length": 6, "hash_ids": [1]} for at in (0, 3000)]
        work = read_log(wrote(tmp_path, lines(*rows))).workload
        assert work.arrival_s.tolist() == [0, 3]

    def test_servegen_in_gzip(self, tmp_path: Path):
        text = gzip.compress((SERVEGEN + "0.0,17,828,943\n0.25,23,237,700\n").encode())
        work = read_log(wrote(tmp_path, text, "log.csv.gz")).workload
        assert work.arrival_s.tolist() == [0, 0.25]
        assert work.output_tokens.tolist() == [943, 700]

    def test_own_lines(self, tmp_path: Path):
        """JSON lines by our own names, with limits, with a prompt instead of its tokens, and with usage as servers say
        it."""
        log = read_log(
            wrote(tmp_path, lines({"arrival_s": 3, "prompt": "x" * 40, "output_tokens": 7, "max_tokens": 5})),
            keeps_prompts=True,
        )
        assert log.workload.prompt_tokens.tolist() == [11]
        assert log.workload.answer_tokens.tolist() == [5]
        assert log.prompts == ["x" * 40]
        assert any("characters ÷ 4" in note for note in log.notes)
        usage = {"created": 10, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
        assert read_log(wrote(tmp_path, lines(usage))).workload.output_tokens.tolist() == [4]

    @pytest.mark.parametrize(
        ("name", "num", "span_s"),
        [
            ("azure-2023-conversation.csv", 19_366, 3502),
            ("mooncake-conversation.jsonl", 12_031, 3537),
            ("servegen-deepseek-r1-peak-hour.csv.gz", 132_423, 3600),
        ],
    )
    def test_published_traces(self, name: str, num: int, span_s: float):
        """The real files, where they are at hand."""
        path = MIRROR / "traces" / name
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        log = read_log(path)
        assert len(log.workload) == num
        assert log.workload.arrival_s[-1] == pytest.approx(span_s, abs=1)
        assert log.notes == ()


class TestWhatIsDoneIsSaid:
    def test_unordered_times_are_sorted(self, tmp_path: Path):
        """Sorted, said, and prompts stay with their requests."""
        rows = [{"arrival_s": at, "prompt": str(at), "output_tokens": at + 1} for at in (5, 2, 9)]
        log = read_log(wrote(tmp_path, lines(*rows)), keeps_prompts=True)
        assert log.workload.output_tokens.tolist() == [3, 6, 10]
        assert [log.prompts[row] for row in log.workload.rows] == ["2", "5", "9"]
        assert any("sorted" in note for note in log.notes)

    def test_rows_without_output_are_left_out(self, tmp_path: Path):
        log = read_log(wrote(tmp_path, SERVEGEN + "0,1,5,0\n1,1,5,3\n2,1,5,0\n"))
        assert len(log.workload) == 1
        assert any(note.startswith("2 rows without an output token") for note in log.notes)

    def test_no_times_is_all_at_once(self, tmp_path: Path):
        log = read_log(wrote(tmp_path, lines(*[{"prompt_tokens": 1, "output_tokens": 2}] * 3)))
        assert log.workload.arrival_s.tolist() == [0, 0, 0]
        assert any("all requests come at once" in note for note in log.notes)

    def test_a_long_log_is_read_as_far_as_it_goes(self, tmp_path: Path):
        """A bound on rows, so that memory has one."""
        text = SERVEGEN + "".join(f"{i},1,5,3\n" for i in range(50))
        log = read_log(wrote(tmp_path, text), max_rows=20)
        assert len(log.workload) == 20
        assert any("Only the first 20 rows" in note for note in log.notes)
        assert read_log(wrote(tmp_path, text), max_rows=50).notes == ()

    def test_one_row_is_a_log(self, tmp_path: Path):
        assert len(read_log(wrote(tmp_path, AZURE + "2023-11-16 18:17:03,1,2\n")).workload) == 1


class TestWhatCantBeRead:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "has no rows"),
            (SERVEGEN, "has no rows"),
            (SERVEGEN + "0,1,5,0\n", "no row has an output token"),
            (SERVEGEN + "0,1,5,3\n,1,5,3\n", "line 3 has no arrival_s"),
            (SERVEGEN + "0,1,5,3\n\n-4,1,5,3\n", "line 4: arrival_s is '-4'"),
            (SERVEGEN + "0,1,5,3\nsoon,1,5,3\n", "line 3: arrival_s is 'soon'"),
            (SERVEGEN + "nan,1,5,3\n", "line 2: arrival_s is 'nan'"),
            (SERVEGEN + "0,1,5,-3\n", "line 2: output_tokens is '-3'"),
            (SERVEGEN + "0,1,5,2.5\n", "whole number of tokens"),
            (SERVEGEN + "0,1,5\n", "line 2 has 3 values for 4 columns"),
            (SERVEGEN + '0,1,5,3\n{"arrival_s": 1}\n', "line 3 has 1 values for 4 columns"),
            ("a,b\n1,2\n", "line 2 has no output tokens: one of output_tokens"),
            (lines({"output_tokens": 3}), "line 1 has neither a prompt nor its tokens"),
            (lines({"prompt_tokens": 1, "output_tokens": 3}) + "0,1,5,3\n", "line 2 is no JSON"),
            (lines({"prompt_tokens": 1, "output_tokens": 3}, [1]), "line 2 is \\[1\\]"),
            (
                lines({"prompt_tokens": 1, "output_tokens": 3}, {"input_length": 1, "output_length": 3}),
                "line 2 has no prompt_tokens, which the rows before it have; is it of another format",
            ),
            (lines({"arrival_s": True, "prompt_tokens": 1, "output_tokens": 3}), "arrival_s is True"),
            (lines({"prompt_tokens": 1, "output_tokens": 1e30}), "whole number of tokens"),
            (AZURE + "yesterday,1,2\n", "TIMESTAMP is 'yesterday'"),
            (b"\xff\xfe\x00", "can't be read"),
            (gzip.compress(SERVEGEN.encode() * 100, mtime=0)[:40], "can't be read"),
        ],
    )
    def test_is_told_with_its_line(self, tmp_path: Path, text: str | bytes, told: str):
        with pytest.raises(InputError, match=told):
            read_log(wrote(tmp_path, text))

    def test_no_file(self, tmp_path: Path):
        with pytest.raises(InputError, match="can't be read"):
            read_log(tmp_path / "none")

    def test_a_predictor_needs_prompts(self, tmp_path: Path):
        """Asked for prompts, a log without them is told of."""
        with pytest.raises(InputError, match="line 2 has no prompt text"):
            read_log(wrote(tmp_path, SERVEGEN + "0,1,5,3\n"), keeps_prompts=True)


def test_columns_stay_small(tmp_path: Path):
    """Rows are columns of 8 bytes, not objects."""
    text = SERVEGEN + "".join(f"{i},1,5,{1 + i % 90}\n" for i in range(2000))
    work = read_log(wrote(tmp_path, text)).workload
    assert all(column.dtype.itemsize == 8 for column in vars(work).values() if isinstance(column, np.ndarray))
