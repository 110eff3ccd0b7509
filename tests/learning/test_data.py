"""Data: rows of logs become prompts with lengths, wrong ones are named, public sets come from mirror or home."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from lengthwise.errors import InputError, UsageError
from lengthwise.learning import data_fetch
from lengthwise.learning.data import LengthData, read_data
from lengthwise.learning.data_catalogue import CATALOGUE, Dataset, Part, Recipe, join_alpaca, join_outputs
from lengthwise.types import Request

MIRROR = Path(__file__).parents[2].parent / "shared" / "data"
needs_mirror = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"no {MIRROR}")


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- rows of logs ----------------------------------------------------------------------------------------------


def test_the_papers_rows(tmp_path: Path) -> None:
    """One sample a temperature, cut at 512 (513 and 514 are 512, "at least"); the reference stands apart, and no label
    is left where a predictor could read it."""
    row = {"id": "7", "instruction": "Add.", "input": "2, 3", "L_gt": 4, "L_t0.0": 9, "L_t0.3": 514, "L_t0.7": 512}
    data = read_data(lines(tmp_path / "d.jsonl", row, {**row, "input": "", "L_t0.3": 11}))
    assert [request.prompt for request in data.requests] == ["Add.\n2, 3", "Add."]
    assert data.lengths.tolist() == [[9, 512, 512], [9, 11, 512]]
    assert data.is_cut.tolist() == [[False, True, True], [False, False, True]]
    assert data.limit == 512
    assert data.reference is not None
    assert data.reference.tolist() == [4, 4]
    assert data.requests[0].id == "7"
    assert not data.requests[0].metadata


def test_own_logs(tmp_path: Path) -> None:
    """`length`, a list of samples, `completion_tokens` and `usage` are lengths; what was cut is known to be; settings
    of the API are carried, further fields are metadata."""
    path = lines(
        tmp_path / "log.jsonl",
        {"prompt": "a", "length": 12.5, "user": "u1"},
        "\n",
        {"prompt": "b", "length": [3, 40], "finish_reason": "length"},
        {"messages": [{"role": "user", "content": "c"}], "usage": {"completion_tokens": 9}, "temperature": 0.7},
        {"prompt": "d", "completion_tokens": 20, "max_tokens": 20, "tools": [{"type": "function"}], "stop": "."},
    )
    data = read_data(path)
    np.testing.assert_array_equal(data.lengths, [[12.5, np.nan], [3, 40], [9, np.nan], [20, np.nan]])
    assert data.is_cut.tolist() == [[False, False], [True, True], [False, False], [True, False]]
    a, _, c, d = data.requests
    assert [request.id for request in data.requests] == ["1", "3", "4", "5"]
    assert a.metadata == {"user": "u1"}
    assert (c.text, c.sampling.temperature) == ("c", 0.7)
    assert (d.api_fields, d.max_tokens, d.sampling.stop) == ({"tools": [{"type": "function"}]}, 20, (".",))
    assert data.limit is None
    assert data.reference is None


def test_parquet(tmp_path: Path) -> None:
    """A Parquet file is read as the same rows in JSON would be; null is left out."""
    rows = [{"prompt": "a", "length": 3, "max_tokens": None}, {"prompt": "b", "length": 700, "max_tokens": 800}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "log.parquet")
    data = read_data(tmp_path / "log.parquet")
    assert data.lengths.tolist() == [[3], [700]]
    assert [request.max_tokens for request in data.requests] == [None, 800]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([*rows, {"prompt": "c", "length": 0}]), tmp_path / "b.parquet"
    )
    with pytest.raises(InputError, match="row 3: length is 0"):
        read_data(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "x", "length": 0}, "line 2: length is 0; it must be"),
        ({"prompt": "x", "length": -5}, "line 2: length is -5"),
        ('{"prompt": "x", "length": NaN}\n', "line 2: length is nan"),
        ('{"prompt": "x", "length": Infinity}\n', "line 2: length is inf"),
        ({"prompt": "x", "length": "12"}, "line 2: length is '12'"),
        ({"prompt": "x", "length": None}, "line 2: length is None"),
        ({"prompt": "x", "length": True}, "line 2: length is True"),
        ({"prompt": "x", "length": 10**30}, "line 2: length is 1000"),
        ({"prompt": "x", "length": []}, "line 2: length is an empty list"),
        ({"prompt": "x", "length": [5, 0]}, "line 2: length is 0"),
        (
            {"prompt": "x", "length": 30, "max_tokens": 20},
            "line 2: the length 30 lies beyond the row's max_tokens of 20",
        ),
        ({"prompt": "x"}, "line 2: it has no length"),
        ({"length": 4}, "line 2: it has none of prompt, messages, instruction"),
        ({"prompt": "x", "instruction": "y", "length": 4}, "line 2: it has prompt and instruction"),
        ({"prompt": 3, "length": 4}, "line 2: prompt is 3"),
        ({"messages": "hello", "length": 4}, "line 2: messages is 'hello'"),
        ({"messages": [1], "length": 4}, "line 2: prompt is"),
        ({"instruction": "x", "L_t0.0": 0, "L_gt": 3}, "line 2: L_t0.0 is 0"),
        ({"prompt": "x", "length": 4, "temperature": -1}, "line 2: temperature is -1"),
        ({"prompt": "x", "length": 4, "temperature": "hot"}, "line 2: temperature is"),
        ({"prompt": "x", "length": 4, "stop": 5}, "line 2: stop is 5"),
        ("[1]\n", "line 2 is no object"),
        ("{\n", "line 2 is no JSON"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: object, said: str) -> None:
    """File, line, value, and what would be right."""
    path = lines(tmp_path / "log.jsonl", {"prompt": "a", "length": 3}, row)
    with pytest.raises(InputError, match=said):
        read_data(path)


def test_files_that_hold_no_data(tmp_path: Path) -> None:
    """Missing, empty, binary files, folders and false Parquet are refused in a sentence."""
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 not")
    for name in ("missing", "empty", "binary", ".", "no.parquet"):
        with pytest.raises(InputError, match=name):
            read_data(tmp_path / name)


def test_odd_prompts_are_data(tmp_path: Path) -> None:
    """An empty prompt, a megabyte and other scripts are rows as any other."""
    path = lines(tmp_path / "d", *({"prompt": text, "length": 5} for text in ("", "x" * 10**6, "写故事", "\u2028")))
    assert [len(request.text) for request in read_data(path).requests] == [0, 10**6, 3, 1]


def test_a_limit_cuts_what_is_longer(tmp_path: Path) -> None:
    """Lengths that reach the limit stand at it, and are marked: at least that long."""
    path = lines(tmp_path / "d", *({"prompt": "x", "length": length} for length in (5, 99, 100, 300)))
    data = read_data(path, limit=100)
    assert data.lengths.ravel().tolist() == [5, 99, 100, 100]
    assert data.is_cut.ravel().tolist() == [False, False, True, True]
    assert data.within(200).limit == 100


def test_rows_of_data() -> None:
    """Some rows, by flags, indices or a slice, keep their lengths."""
    requests = tuple(Request(str(i), f"p{i}") for i in range(4))
    data = LengthData(requests, np.arange(1.0, 9).reshape(4, 2), np.zeros((4, 2), bool), reference=np.arange(4.0))
    for rows in (np.array([False, True, False, True]), [1, 3], slice(1, None, 2)):
        part = data[rows]
        assert [request.id for request in part.requests] == ["1", "3"]
        assert part.lengths.tolist() == [[3, 4], [7, 8]]
        assert part.reference is not None
        assert part.reference.tolist() == [1, 3]


def test_columns_that_do_not_match() -> None:
    """A request without samples, and columns of another length, are the caller's error."""
    requests = (Request("a", "x"), Request("b", "y"))
    for lengths in (np.ones((1, 1)), np.ones(2), np.array([[1.0], [np.nan]])):
        with pytest.raises(ValueError, match="length"):
            LengthData(requests, lengths, np.zeros(lengths.shape, bool))


# -- public sets -----------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A real HTTP server over a folder, and a cache of the test's own."""
    monkeypatch.setenv("LENGTHWISE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("LENGTHWISE_DATA_MIRROR", raising=False)
    (tmp_path / "home").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(tmp_path / "home")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path / "home", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def _part(home: tuple[Path, str], name: str, rows: list[dict[str, Any]]) -> Part:
    content = json.dumps(rows).encode()
    (home[0] / name).write_bytes(content)
    return Part(name, hashlib.sha256(content).hexdigest(), f"{home[1]}/{name}")


@pytest.fixture
def joined(home: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A set of two rows in two files, as Alpaca's prompts and Vicuna's lengths are."""
    prompts = [{"instruction": "one", "input": "", "output": "."}, {"instruction": "two", "input": "2", "output": "."}]
    lengths = [{"id": "2", "L_gt": 3, "L_t0.7": 8, "L_t0.0": 7}, {"id": "1", "L_gt": 4, "L_t0.7": 6, "L_t0.0": 5}]
    parts = (_part(home, "lengths.json", lengths), _part(home, "prompts.json", prompts))
    dataset = Dataset("two rows", "none", 2, (Recipe(parts, partial(join_alpaca, num_rows=2)),))
    monkeypatch.setitem(CATALOGUE, "two", dataset)
    return dataset


def test_a_set_is_fetched_joined_and_kept(home: tuple[Path, str], joined: Dataset, tmp_path: Path) -> None:
    """Lengths find their prompts by id; once fetched, the public home is not asked again."""
    data = read_data("two")
    assert data.name == "two"
    assert [request.text for request in data.requests] == ["two\n2", "one"]
    assert data.lengths.tolist() == [[7, 8], [5, 6]]
    for path in home[0].iterdir():
        path.unlink()
    assert read_data("two").lengths.tolist() == data.lengths.tolist()


def test_other_content_is_refused(home: tuple[Path, str], joined: Dataset, tmp_path: Path) -> None:
    """A public file that changed is no part of the set, and neither is a mirror's."""
    (home[0] / "prompts.json").write_text("[]")
    with pytest.raises(InputError, match=r"prompts.json can't be fetched .*hash"):
        read_data("two")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name in ("lengths.json", "prompts.json"):
        (mirror / name).write_text("[]")
    with pytest.raises(InputError, match="has SHA-256"):
        read_data("two", mirror)


def test_a_home_that_is_down_names_the_way_out(joined: Dataset, home: tuple[Path, str]) -> None:
    """Without the file the answer is a sentence with the address and the mirror."""
    (home[0] / "lengths.json").unlink()
    with pytest.raises(InputError, match=r"http://127.* can't be fetched .*404.*--mirror"):
        read_data("two")


def test_without_a_network_it_says_so_shortly(
    joined: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host that can't be reached is named in one sentence without a dump, and pooch says nothing on its own."""
    closed = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    parts = (Part("other.json", "0" * 64, f"http://{host}/other.json"),)
    monkeypatch.setitem(CATALOGUE, "gone", Dataset("none", "none", 1, (Recipe(parts),)))
    with pytest.raises(InputError) as caught:
        data_fetch.get("gone")
    assert f"can't be fetched ({host} can't be reached). Try again, or" in str(caught.value)
    assert "Pool" not in str(caught.value)
    read_data("two")
    assert capsys.readouterr().err == ""


def test_the_mirror_comes_first(
    home: tuple[Path, str], joined: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts in the mirror, named by option or by environment, need no network."""
    mirror = tmp_path / "mirror"
    home[0].rename(mirror)
    assert len(read_data("two", mirror)) == 2
    with pytest.raises(InputError, match="can't be fetched"):
        data_fetch._fetched(Part("other.json", "0" * 64, f"{home[1]}/other.json"))
    monkeypatch.setenv("LENGTHWISE_DATA_MIRROR", str(mirror))
    assert len(read_data("two")) == 2
    monkeypatch.setenv("LENGTHWISE_DATA_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere is no folder"):
        read_data("two")


def test_a_set_without_a_public_file_needs_a_mirror(home: tuple[Path, str]) -> None:
    """It says which file the mirror must hold."""
    with pytest.raises(InputError, match=r"no public file; give a --mirror folder that holds traces/servegen"):
        data_fetch.get("traces/servegen-deepseek-r1-peak-hour")


def test_answers_give_the_lengths_that_were_counted(tmp_path: Path) -> None:
    """AlpacaEval's outputs become tokens by their characters, at least one."""
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "x" * 41}, {"instruction": "b", "output": ""}]))
    assert [(row["prompt"], row["length"]) for row in join_outputs([path])] == [("a", 10), ("b", 1)]


@needs_mirror
@pytest.mark.parametrize("name", [name for name, dataset in CATALOGUE.items() if dataset.has_prompts])
def test_the_sets_are_what_they_say(home: tuple[Path, str], name: str) -> None:
    """Each set with prompts that a mirror can serve has its rows and proper lengths."""
    if name == "alpaca-vicuna/validation":
        pytest.skip("the whole validation file is not in the mirror")
    data = read_data(name, MIRROR)
    assert len(data) == CATALOGUE[name].num_rows
    assert 30 < np.nanmean(data.lengths) < 600
    assert len({request.id for request in data.requests}) == len(data)


@needs_mirror
@pytest.mark.parametrize("name", [name for name, dataset in CATALOGUE.items() if not dataset.has_prompts])
def test_the_traces_are_the_mirrors(home: tuple[Path, str], name: str) -> None:
    """Traces are handed out as they are."""
    assert data_fetch.get(name, MIRROR).is_relative_to(MIRROR)
