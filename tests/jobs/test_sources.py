"""Where prompts come from: files of lines, compressed or not, and standard input; whatever stands in them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import pty
import re
import sys
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lengthwise.errors import InputError, RequestError, UsageError
from lengthwise.jobs.lines import BOM, MAX_LINE_BYTES, Line, read_lines
from lengthwise.jobs.rows import read_row, row_id_of
from lengthwise.jobs.sources import STANDARD_INPUT, Source, open_source
from lengthwise.jobs.streams import Unpacked
from lengthwise.types import ErrorInfo, Request, SamplingParams

CALL = b'{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}'


def file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


class Pipe:
    """A real pipe as standard input. What is not written within ten seconds was waited for in vain: it is closed."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.stdin, self._writing = os.fdopen(reading), writing
        self.is_late = False
        self._timer = threading.Timer(10, self._give_up)
        self._timer.start()

    def write(self, content: bytes) -> None:
        os.write(self._writing, content)

    def close(self) -> None:
        self._timer.cancel()
        os.close(self._writing)

    def _give_up(self) -> None:
        self.is_late = True
        os.close(self._writing)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    made = Pipe()
    monkeypatch.setattr(sys, "stdin", made.stdin)
    yield made
    made.stdin.close()


def fed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """`content` on standard input."""
    fed_file = tempfile.TemporaryFile()  # noqa: SIM115
    fed_file.write(content)
    fed_file.seek(0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(fed_file))


def contents(source: Source) -> list[tuple[int, object]]:
    return [(line.number, line.content) for line in source.lines()]


class TestFormat:
    """Which format is found where none is asked for."""

    @pytest.mark.parametrize(
        ("name", "content", "found"),
        [
            ("a.jsonl", CALL, "openai-batch"),
            ("a.jsonl", b"\n" + CALL.replace(b'"custom_id": "a", ', b""), "openai-batch"),
            ("a", BOM + CALL, "openai-batch"),
            ("a.jsonl", b'{"custom_id": "a", "prompt": "x"}', "jsonl"),
            ("a.jsonl", b'{"prompt": "x", "body": "y"}', "jsonl"),
            ("a.jsonl", CALL[:-1], "jsonl"),
            ("a.txt", CALL, "text"),
            ("a.json", b"[" * 100_000 + b"\n", None),
            ("a.jsonl", b'{"body": ' + b"[" * 100_000, "jsonl"),
        ],
    )
    def test_calls_of_the_api(self, tmp_path: Path, name: str, content: bytes, found: str | None) -> None:
        """A first line with a body and a custom_id, method or url is a batch, but not in a text file."""
        if found is None:
            with pytest.raises(InputError, match="one JSON array"):
                open_source(file(tmp_path, name, content))
        else:
            assert open_source(file(tmp_path, name, content)).format == found

    @pytest.mark.parametrize("place", ["file", "standard input"])
    @pytest.mark.parametrize("bad", [CALL[:-30], CALL.replace(b'"x"', b'"\xff"'), b"{" + b"x" * MAX_LINE_BYTES])
    def test_a_bad_line_does_not_hide_what_the_others_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, bad: bytes
    ) -> None:
        """Cut off, no UTF-8, too long: it is one error row, and the calls behind it are requests."""
        content = bad + b"\n" + CALL + b"\n" + CALL.replace(b'"a"', b'"b"')
        fed(monkeypatch, content)
        source = open_source(STANDARD_INPUT if place == "standard input" else file(tmp_path, "a.jsonl", content))
        assert source.format == "openai-batch"
        first, *others = (read_row(line, source.format, SamplingParams()) for line in source.lines())
        assert isinstance(first.content, ErrorInfo)
        assert [(row.line, row.id, type(row.content)) for row in others] == [(2, "a", Request), (3, "b", Request)]

    def test_no_more_is_looked_at_than_the_start(self, tmp_path: Path) -> None:
        """A file that has no object in its first lines is JSONL by its name, whatever stands further down."""
        for bad in (b"{\n" * 64, b"{" * 2**20 + b"\n{\n"):
            assert open_source(file(tmp_path, "a.jsonl", bad + CALL)).format == "jsonl"
            assert open_source(file(tmp_path, "a.jsonl", bad[2:] + CALL)).format == "openai-batch"

    @pytest.mark.parametrize(
        ("line", "found"),
        [
            (b'{"custom_id": "a", "url": "/v1/completions"}', "openai-batch"),
            (b'{"custom_id": "a", "method": "POST", "params": {}}', "openai-batch"),
            (b'{"method": "POST", "url": "x"}', "jsonl"),
            (b'{"custom_id": "a", "url": "x", "prompt": "y"}', "jsonl"),
            (b'{"url": "x", "body": "y", "instruction": "z"}', "jsonl"),
        ],
    )
    def test_calls_without_a_body_and_rows_of_the_web(self, tmp_path: Path, line: bytes, found: str) -> None:
        """A call that lacks its body is a call; a row with a prompt of its own is none, whatever else it has."""
        assert open_source(file(tmp_path, "a.jsonl", line)).format == found

    def test_compressed_names(self, tmp_path: Path) -> None:
        """The suffix before .gz counts; the content says what is compressed, whatever it is called."""
        for name, found in (("a.txt.gz", "text"), ("a.jsonl.gz", "jsonl"), ("a.gz", "text"), ("a.jsonl", "jsonl")):
            assert open_source(file(tmp_path, name, gzip.compress(b"Hello"))).format == found
        assert open_source(file(tmp_path, "a.gz", b'{"prompt": "x"}')).format == "jsonl"

    def test_a_prompt_field_where_there_are_no_fields(self, tmp_path: Path) -> None:
        """Text and batches have no field to choose: said, with a way out."""
        for content, found in ((b"Hello", "text"), (CALL, "openai-batch")):
            with pytest.raises(UsageError, match=f"read as {found}, which has none to choose from.*--input-format"):
                open_source(file(tmp_path, "prompts", content), prompt_field="question")


class TestCompressed:
    """Gzip reads like the file that was compressed."""

    def test_several_members(self, tmp_path: Path) -> None:
        """Compressed files that were appended to each other are one, with one digest: that of what is in them."""
        whole = b'{"id": "a", "prompt": "x"}\n' * 3
        path = file(tmp_path, "a.jsonl.gz", gzip.compress(whole[:30]) + gzip.compress(whole[30:]))
        source = open_source(path)
        assert [number for number, _ in contents(source)] == [1, 2, 3]
        assert source.sha256 == hashlib.sha256(whole).hexdigest()

    @pytest.mark.parametrize("place", ["file", "standard input"])
    def test_cut_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
        """What was read before it broke is told; cut in its first bytes, it is refused at once."""
        whole = gzip.compress(b"\n".join(b"%d %s" % (i, os.urandom(50).hex().encode()) for i in range(2000)))
        path = STANDARD_INPUT if place == "standard input" else file(tmp_path, "a.gz", whole[:-20])
        fed(monkeypatch, whole[:-20])
        read = []
        source = open_source(path)
        with pytest.raises(InputError, match=r"can't be unpacked after its line [\d,]+: it is cut off\. Copy"):
            read.extend(line.number for line in source.lines())
        assert read == list(range(1, len(read) + 1))
        assert len(read) > 1500
        fed(monkeypatch, whole[:15])
        path = STANDARD_INPUT if place == "standard input" else file(tmp_path, "a.gz", whole[:15])
        with pytest.raises(InputError, match="from its start: it is cut off"):
            open_source(path)

    def test_broken(self, tmp_path: Path) -> None:
        """A byte that was changed, or rubbish at the end, is found."""
        whole = bytearray(gzip.compress(b"Hello\n" * 20_000, mtime=0))
        for broken in (
            whole[:-8] + b"abcd" + whole[-4:],
            whole + b"rubbish",
            whole[:60] + b"\xff\xff\xff" + whole[63:],
        ):
            with pytest.raises(InputError, match="is gzip and can't be unpacked"):
                contents(open_source(file(tmp_path, "a.txt.gz", bytes(broken))))

    @pytest.mark.parametrize(
        ("start", "kind"),
        [
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"\xfd7zXZ", "xz"),
            (b"PK\x03\x04", "zip"),
            (bz2.compress(CALL), "bzip2"),
            (bz2.compress(CALL, 1), "bzip2"),
        ],
    )
    def test_other_kinds(self, tmp_path: Path, start: bytes, kind: str) -> None:
        """Other compressed files are no text: said, not answered as rubbish. So are those in gzip, and gzip again."""
        with pytest.raises(InputError, match=f"compressed by {kind}.*only gzip"):
            open_source(file(tmp_path, "a.jsonl", start + b"\0" * 20))
        for inner, inner_kind in ((start, kind), (gzip.compress(CALL), "gzip")):
            with pytest.raises(InputError, match=f"what is in it is compressed by {inner_kind} again; unpack it once"):
                open_source(file(tmp_path, "a.jsonl.gz", gzip.compress(inner)))

    def test_texts_that_begin_like_them(self, tmp_path: Path) -> None:
        """What is no compressed file is read."""
        for text in ("BZh9 is a chess move", "P", "PK", "ARROW", "B"):
            assert contents(open_source(file(tmp_path, "a", text.encode()))) == [(1, text)]


ARRAYS = (b'[{"prompt": "a"}, {"prompt": "b"}]', b'[\n  {"prompt": "a"}\n]', b'[{\n"prompt": "a"}]', b" [ {}]", b"[")
TABLES = (b"PAR1\x15\x04\n\xff\n", b"ARROW1\0\0", b"FEA1")


class TestNoPrompts:
    """What would be answered line by line, although its lines are no prompts, is refused, with a way out."""

    @pytest.mark.parametrize("content", [*ARRAYS, *TABLES, b'[{"prompt": "' + b"x" * MAX_LINE_BYTES])
    @pytest.mark.parametrize("place", ["a", "a.jsonl", "a.gz", "standard input"])
    def test_arrays_and_tables(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, place: str
    ) -> None:
        """JSON arrays of objects, on one line or more, and tables of columns; under any name, on standard input, in
        gzip. As text they can be asked for."""
        packed = gzip.compress(content, 1) if place == "a.gz" else content
        path = STANDARD_INPUT if place == "standard input" else file(tmp_path, place, packed)
        for asked in ("auto", "jsonl", "openai-batch", "text"):
            if path != STANDARD_INPUT and asked == "auto" and packed.startswith(b"PAR1"):
                continue  # then it is read as what it seems to be
            fed(monkeypatch, content)
            if asked == "text":
                assert open_source(path, "text").format == "text"
            else:
                with pytest.raises(InputError, match=r"(is one JSON array|is (Parquet|Arrow|Feather)).*format text"):
                    open_source(path, asked)  # type: ignore[arg-type]

    @pytest.mark.parametrize("content", [b"[citation needed]", b"[{name}] is who?", b'["a", "b"]', b"[1]"])
    def test_texts_that_begin_like_an_array(self, tmp_path: Path, content: bytes) -> None:
        """A bracket alone makes no array of rows."""
        assert contents(open_source(file(tmp_path, "a", content))) == [(1, content.decode())]

    @pytest.mark.parametrize("suffix", [".csv", ".TSV", ".csv.gz", ".xlsx", ".arrow", ".xml", ".html"])
    def test_by_name(self, tmp_path: Path, suffix: str) -> None:
        """Kinds of files that have no prompt on each line; if they do, that can be said."""
        path = file(tmp_path, f"a{suffix}", b"prompt,id\nHello,1\n")
        with pytest.raises(InputError, match=r"can't be read; convert it to JSONL or Parquet.*--input-format text"):
            open_source(path)
        assert open_source(path, "text").format == "text"
        assert open_source(path, "jsonl").format == "jsonl"

    def test_put_together(self, tmp_path: Path) -> None:
        """Files from Windows that were put together have a byte-order mark in the middle: it is no part of a line."""
        both = contents(open_source(file(tmp_path, "a.jsonl", (BOM + b'{"prompt": "x"}\r\n') * 2)))
        assert both == [(1, '{"prompt": "x"}'), (2, '{"prompt": "x"}')]


def flushed_lines(lines: list[bytes]) -> list[bytes]:
    """One gzip member, flushed after each line: what there is to be sent by then."""
    member = zlib.compressobj(wbits=31)
    pieces = [member.compress(line) + member.flush(zlib.Z_SYNC_FLUSH) for line in lines]
    return [*pieces, member.flush()]


class TestCompressedPipe:
    """Gzip on a pipe that is written slowly."""

    LINES = (b"one\n", b"two\n", b"three\n")

    @pytest.mark.parametrize("kind", ["flushed", "members"])
    def test_lines_come_out_as_they_come_in(self, pipe: Pipe, kind: str) -> None:
        """Flushed after each line, or each line a member: no line waits for more than its own bytes."""
        pieces = flushed_lines([*self.LINES]) if kind == "flushed" else [gzip.compress(line) for line in self.LINES]
        pipe.write(pieces[0])
        source = open_source(STANDARD_INPUT)
        lines = source.lines()
        for number, line in enumerate(self.LINES, 1):
            assert next(lines) == Line(number, line.decode().strip())
            assert not pipe.is_late
            if number < len(pieces):
                pipe.write(pieces[number])
        pipe.close()
        assert [*lines] == []
        assert source.sha256 == hashlib.sha256(b"".join(self.LINES)).hexdigest()

    def test_members_that_came_together(self, pipe: Pipe) -> None:
        """The second one is not kept back until there is more behind it."""
        pipe.write(b"".join(gzip.compress(line) for line in self.LINES) + bytes(5))
        lines = open_source(STANDARD_INPUT).lines()
        assert [next(lines).content for _ in self.LINES] == ["one", "two", "three"]
        assert not pipe.is_late
        pipe.close()
        assert [*lines] == []


@given(
    st.lists(st.binary(max_size=300) | st.integers(1, 400_000).map(bytes), min_size=1, max_size=4),
    st.integers(0, 300),
    st.integers(1, 8),
)
def test_unpacked_is_what_was_packed(members: list[bytes], num_zeros: int, num_cut: int) -> None:
    """Members one after another, with zeros between them and at the end; cut off at the end of the last, it is
    noticed, after all that can be read was given out."""
    packed = (bytes(num_zeros)).join(gzip.compress(member) for member in members)
    whole = io.BufferedReader(Unpacked(io.BytesIO(packed + bytes(num_zeros))))
    assert whole.read() == b"".join(members)
    cut = Unpacked(io.BytesIO(packed[:-num_cut]))
    read: list[bytes] = []
    with pytest.raises(EOFError, match="cut off"):
        read.extend(iter(lambda: cut.read(1000), b""))
    assert b"".join(read) == b"".join(members)


class TestLongLines:
    """A line is held only up to a limit."""

    def test_100_megabytes_are_an_error_row_and_are_not_held(self, tmp_path: Path) -> None:
        """The line is an error, its neighbours are read, and memory holds a fraction of it."""
        path = tmp_path / "a.jsonl"
        with path.open("wb") as writing:
            writing.write(b'{"prompt": "a"}\n')
            writing.seek(100 * 10**6, os.SEEK_CUR)  # zeros, which take no disk
            writing.write(b'\n{"prompt": "b"}\n')
        tracemalloc.start()
        try:
            first, long, last = open_source(path).lines()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (first.content, last.content) == ('{"prompt": "a"}', '{"prompt": "b"}')
        assert isinstance(long.content, RequestError)
        assert (long.content.type, long.number, last.number) == ("line_too_long", 2, 3)
        assert "100,000,000 bytes" in str(long.content)
        assert peak < 3 * MAX_LINE_BYTES

    def test_the_limit_itself_is_read(self) -> None:
        """A line may have just so many bytes, with a line feed or at the end of the file."""
        text = b"x" * MAX_LINE_BYTES
        assert [line.content for line in read_lines(io.BytesIO(text + b"\n" + text))] == [text.decode()] * 2
        (line,) = read_lines(io.BytesIO(text + b"x"))
        assert isinstance(line.content, RequestError)


class TestStandardInput:
    """Prompts that are fed to the process."""

    def test_lines_come_out_as_they_come_in(self, pipe: Pipe) -> None:
        """The format is known from the first line, byte by byte; no line waits for the one after it."""
        for piece in (b"\n", b"{", b'"prompt": "a"}\n'):
            pipe.write(piece)
        source = open_source(STANDARD_INPUT)
        assert (source.format, source.is_repeatable, source.name) == ("jsonl", False, "standard input")
        lines = source.lines()
        assert next(lines) == Line(2, '{"prompt": "a"}')
        pipe.write(b'{"prompt": "b"}\n{"prompt"')
        assert next(lines) == Line(3, '{"prompt": "b"}')
        assert not pipe.is_late
        pipe.write(b': "c"}')
        pipe.close()
        assert [*lines] == [Line(4, '{"prompt": "c"}')]
        assert source.sha256 == hashlib.sha256(b'\n{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}').hexdigest()

    @pytest.mark.parametrize("first", [b"x\n", b"P\n", b"\n", b'{"prompt": "x"}\n'])
    def test_a_short_line_waits_for_nothing(self, pipe: Pipe, first: bytes) -> None:
        """However few bytes there are, what they can't be is known at once."""
        pipe.write(first + b"\n" if first.strip() else b"\nx\n")
        source = open_source(STANDARD_INPUT)
        assert not pipe.is_late
        pipe.close()
        assert len(contents(source)) == 1

    def test_a_pipe_that_another_process_left_unblocking(self, pipe: Pipe) -> None:
        """It is waited for all the same."""
        os.set_blocking(pipe.stdin.fileno(), False)
        timer = threading.Timer(0.1, pipe.write, [b"Hello\n"])
        timer.start()
        source = open_source(STANDARD_INPUT)
        timer.join()
        pipe.close()
        assert contents(source) == [(1, "Hello")]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "standard input is empty"),
            (b"\n \n", "standard input is empty"),
            ("x".encode("utf-16"), "standard input is UTF-16"),
            (b"PAR1....PAR1", "standard input is Parquet; give a Parquet file by its name"),
        ],
    )
    def test_wrong_as_a_whole(self, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str) -> None:
        """Refused before any work, as files are."""
        fed(monkeypatch, content)
        with pytest.raises(InputError, match=said):
            open_source(STANDARD_INPUT)

    def test_parquet_is_refused_if_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever is fed."""
        fed(monkeypatch, b"x")
        with pytest.raises(InputError, match="Name the file"):
            open_source(STANDARD_INPUT, "parquet")

    def test_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that has none says so."""
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(InputError, match="Standard input is closed"):
            open_source(STANDARD_INPUT)


class TestReadingFails:
    """Whatever goes wrong while reading is one sentence."""

    def test_in_the_middle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A terminal that is hung up after a line (a real one) is told with how far reading got."""
        terminal, writer = pty.openpty()
        os.write(writer, b"Hello\n")
        os.close(writer)
        with os.fdopen(terminal) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            with pytest.raises(InputError, match=r"standard input can't be read after its line 1: \[Errno 5\]"):
                contents(open_source(STANDARD_INPUT, "text"))

    def test_a_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What can't be read at all."""
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(closed=False, fileno=lambda: folder))
            with pytest.raises(InputError, match=r"Standard input can't be read \(Is a directory\)"):
                open_source(STANDARD_INPUT)
        finally:
            os.close(folder)


json_like = st.sampled_from(
    [
        b'{"prompt": "x"}',
        b'{"id": "a", "prompt": "x"}',
        b'{"id": 7, "prompt": ""}',
        b'{"\\u0069d": "b"}',
        CALL,
        b"{",
        b"[1]",
        b'{"id": "\\ud800", "prompt": "x"}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "x", "id": NaN}',
        b" ",
        b"",
    ]
)
pieces = st.lists(json_like | st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")), max_size=6)
MAGICS = re.compile(
    rb"\x1f\x8b|\x28\xb5\x2f\xfd|\xfd7zX|PK\x03\x04|BZh|\s*(\xef\xbb\xbf)?\s*(PAR1|ARROW1|FEA1|\xff\xfe|\xfe\xff|\[\s*[{\s])"
)


@given(pieces, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["jsonl", "text", "openai-batch"]))
@example([BOM, b"x"], True, True, True, "text")
def test_any_bytes_are_rows_or_errors(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[bytes],
    has_bom: bool,
    has_returns: bool,
    is_compressed: bool,
    asked: str,
) -> None:
    """Every line that is not blank is one row, with its true number and its own id or that number, and is a request or
    an error of that line; byte-order marks, carriage returns and compression change nothing. The digest is that of the
    content."""
    content = (BOM if has_bom else b"") + (b"\r\n" if has_returns else b"\n").join(pieces)
    lines = [line.removeprefix(BOM).rstrip(b"\r") for line in content.split(b"\n")]
    wanted = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    assume(wanted and not MAGICS.match(content + b" "))
    path = file(tmp_path_factory.getbasetemp(), "prompts", gzip.compress(content) if is_compressed else content)
    source = open_source(path, asked)  # type: ignore[arg-type]
    rows = [(line, read_row(line, source.format, SamplingParams())) for line in source.lines()]
    assert [row.line for _, row in rows] == list(wanted)
    assert source.sha256 == hashlib.sha256(content).hexdigest()
    for line, row in rows:
        assert row_id_of(line, source.format) == (row.id if row.is_id_given else None)
        assert row.is_id_given or row.id == str(row.line)
        if isinstance(row.content, Request):
            assert row.content.id == row.id
        else:
            assert row.content.line == row.line
            assert row.content.message
