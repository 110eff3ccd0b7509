"""The journal: nothing that was appended is lost, nothing is doubled, nobody else writes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.errors import JobError
from lengthwise.journal import Fingerprint, Journal, files
from lengthwise.journal.index import Index

Answer = tuple[bytes, bool]  # a line, and whether it is a failure


def parts(**changes: object) -> Fingerprint:
    return {"input": "ab" * 32, "model": "tiny@1", "max_tokens": 64, "stop": ["END"], **changes}


def answer(index: int, text: str = "An answer.") -> Answer:
    return line({"id": f"r{index}", "text": text}), False


def line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


answers_of_any_kind = st.tuples(
    st.dictionaries(st.text(), st.text() | st.floats() | st.none()).map(line), st.booleans()
)


def write(path: Path, answers: list[Answer], given: Fingerprint | None = None) -> None:
    with Journal.open(path) as journal:
        journal.resume(parts() if given is None else given)
        for content, is_failed in answers:
            journal.append(len(journal), content, is_failed)


def read(path: Path) -> list[Answer]:
    """All that a resumed journal holds, by index."""
    with Journal.open(path) as journal:
        journal.resume(parts())
        return [(record.answer, record.is_failed) for record in journal.in_order()]


MEMORY = Path("/dev/shm")  # flushing hundreds of files to a busy disk takes half a minute


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


@settings(deadline=None)  # a busy disk is slow at times
@given(st.lists(answers_of_any_kind, max_size=5))
def test_what_is_appended_is_recovered(answers: list[Answer]) -> None:
    """Any line comes back byte for byte, in any text, after the journal was closed."""
    with folder() as at:
        write(at / "j", answers)
        assert read(at / "j") == answers


@settings(deadline=None)  # a busy disk is slow at times
@given(st.data())
def test_truncated_anywhere_a_prefix_is_recovered_and_appending_goes_on(data: st.DataObject) -> None:
    """Cut at any byte (a crash while writing), the journal holds the first n answers, and takes the rest again."""
    answers = [answer(index, "Zeile – 行\n" * index) for index in range(4)]
    with folder() as at:
        path = at / "j"
        write(path, answers)
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        recovered = read(path)
        assert recovered == answers[: len(recovered)]
        assert len(recovered) >= content[:cut].count(b"\n") - 1, "no whole line is given up"
        with Journal.open(path) as journal:
            journal.resume(parts())
            for index in range(len(recovered), 4):
                journal.append(index, *answers[index])
        assert read(path) == answers


def test_an_append_is_in_the_file_when_it_returns(tmp_path: Path) -> None:
    """A killed process loses nothing that was appended: the line is with the operating system at once."""
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        journal.append(3, *answer(3))
        last = (tmp_path / "j").read_bytes().splitlines()[-1]
        assert json.loads(last)["index"] == 3


def test_the_disk_has_it_a_second_later(tmp_path: Path) -> None:
    """Power loss costs about the last second: a thread flushes to the disk while nothing more is appended."""
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        journal.append(0, *answer(0))
        time.sleep(1.5)
        assert journal._syncer is not None
        assert not journal._syncer.is_dirty


def test_what_failed_may_be_answered_again_and_the_last_record_counts(tmp_path: Path) -> None:
    """A failure is superseded by what follows, also after a resume; the count of failures falls, that of what is
    finished stays; read in turn, both records are given."""
    write(tmp_path / "j", [(b'{"error": 1}\n', True), answer(1)])
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        assert (len(journal), journal.num_failed, journal.has_failed(0)) == (2, 1, True)
        journal.append(0, *answer(0))
        assert (len(journal), journal.num_failed, journal.has_failed(0)) == (2, 0, False)
        assert [record.index for record in journal.in_turn()] == [0, 1, 0]
        assert journal.num_superseded == 1
        with pytest.raises(AssertionError, match="request 0 finished twice"):
            journal.append(0, *answer(0))
    assert read(tmp_path / "j") == [answer(0), answer(1)]


def test_a_digest_is_kept_beside_the_answer(tmp_path: Path) -> None:
    """With a digest or without, the answer is the same."""
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        journal.append(0, *answer(0), digest="00ff")
        journal.append(1, *answer(1))
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        assert [(one.digest, one.answer) for one in journal.in_order()] == [
            ("00ff", answer(0)[0]),
            (None, answer(1)[0]),
        ]


def test_a_long_record_is_read_whole(tmp_path: Path) -> None:
    """However many reads its length takes, and whatever stands behind it."""
    answers = [answer(index, "long " * 4**index) for index in range(9)]
    write(tmp_path / "j", answers)
    assert read(tmp_path / "j") == answers


def test_in_order_is_by_index_and_in_turn_by_time(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        for index in (2, 0, 1):
            journal.append(index, *answer(index))
        assert [record.index for record in journal.in_order()] == [0, 1, 2]
        assert [record.index for record in journal.in_turn()] == [2, 0, 1]
        assert journal.read(1).answer == answer(1)[0]
        with pytest.raises(KeyError):
            journal.read(3)


def test_memory_is_two_bits_a_request(tmp_path: Path) -> None:
    """Offsets stand on the disk, in a file that has no name."""
    index = Index(tmp_path)
    for at in range(100_000):
        index.note(at, at * 7, at % 3 == 0)
    assert len(index._finished) + len(index._failed) < 2 * 100_000 / 8 * 2, "doubled when it grows"
    assert (index.num_finished, index.num_failed) == (100_000, 33_334)
    assert list(index.offsets(100_000)) == [at * 7 for at in range(100_000)]
    assert list(tmp_path.iterdir()) == []
    index.close()


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00\x00\x00\n",
        b'{"index": 0}\n',
        b'{"index": "0", "failed": false, "answer": {}}\n',
        b'{"index": 1, "failed": false, "answer": {"id": }}\n',
        b'{"index": 1, "failed": false, "answer": {"id": "\xff"}}\n',
        b'{"done": 1}\n',
        b"[]\n",
    ],
)
def test_an_unreadable_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "j"
    write(path, [answer(0), answer(1), answer(2)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage, *lines[3:]]))
    with pytest.raises(JobError, match=r"line 3 is unreadable.*Delete that line.*--overwrite"):
        read(path)


def test_failures_are_counted_across_a_resume(tmp_path: Path) -> None:
    write(tmp_path / "j", [answer(0), (answer(1)[0], True)])
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        assert (len(journal), journal.num_failed) == (2, 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"input": "cd" * 32}, "input was changed, or is another one"),
        ({"model": "tiny@2"}, "model was 'tiny@1' and is 'tiny@2' now"),
        ({"max_tokens": 32}, "max_tokens was 64 and is 32 now"),
        ({"stop": ("FIN",)}, r"stop was \['END'\] and is \('FIN',\) now"),
        ({"new": 1}, "new was None and is 1 now"),
    ],
)
def test_another_job_is_refused_by_the_name_of_what_differs(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    """A mismatch names the part, both values and the ways out; the journal is left as it was."""
    write(tmp_path / "j", [answer(0)])
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(JobError, match=rf"settings: {told}\. .*-o, or --overwrite"):
        write(tmp_path / "j", [], parts(**change))
    assert (tmp_path / "j").read_bytes() == before


def test_some_parts_may_be_checked_before_the_others_are_known(tmp_path: Path) -> None:
    """Before a model is loaded, all other differences are already found; a tuple is the list that JSON makes of it."""
    write(tmp_path / "j", [answer(0)])
    with Journal.open(tmp_path / "j") as journal:
        journal.check({"max_tokens": 64, "stop": ("END",)})
        with pytest.raises(JobError, match="max_tokens was 64 and is 32"):
            journal.check({"max_tokens": 32})


HOLD = "import sys, time; from pathlib import Path; from lengthwise.journal import Journal\n"
HOLD += "with Journal.open(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    """One owner: a sentence for the second process; a killed owner leaves no lock behind."""
    path = tmp_path / "j"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        with pytest.raises(JobError, match="Another process works on this job"):
            Journal.open(path)
        owner.kill()
    Journal.open(path).close()


def test_a_journal_that_is_replaced_while_it_is_opened_is_opened_again(tmp_path: Path, monkeypatch) -> None:
    """Between our open and our lock the owner may put a done journal into its place: the lock must be on that one."""
    path = tmp_path / "j"
    write(path, [answer(0)])
    lock = files._lock

    def lock_late(descriptor: int, at: Path) -> None:
        monkeypatch.setattr(files, "_lock", lock)
        with Journal.open(path) as owner:
            owner.resume(parts())
            owner.mark_done({})
        lock(descriptor, at)

    monkeypatch.setattr(files, "_lock", lock_late)
    with Journal.open(path) as journal:
        assert journal.header is not None
        assert journal.header.state == "done"
        with pytest.raises(JobError, match="Another process"):
            Journal.open(path)


def test_done_replaces_the_records_by_a_header(tmp_path: Path) -> None:
    write(tmp_path / "j", [answer(0)])
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        journal.mark_done({"num_requests": 1})
    with Journal.open(tmp_path / "j") as journal:
        assert journal.header is not None
        assert (journal.header.state, journal.header.outcome) == ("done", {"num_requests": 1})
        assert journal.header.fingerprint == parts()
        with pytest.raises(JobError, match="is done"):
            journal.resume(parts())
        journal.reset()
        journal.resume(parts(seed=5))
    assert [path.name for path in tmp_path.iterdir()] == ["j"], "no temporary file is left"


def test_done_with_its_records_a_job_can_go_on(tmp_path: Path) -> None:
    """It is done until something is appended; what it was done with stays known, and the records count."""
    path = tmp_path / "j"
    write(path, [answer(0), (b'{"error": 1}\n', True)])
    with Journal.open(path) as journal:
        journal.resume(parts())
        journal.mark_done({"num_failed": 1}, keep_records=True)
        assert journal.is_done
    with Journal.open(path) as journal:
        assert (journal.is_done, journal.outcome) == (True, {"num_failed": 1})
        journal.resume(parts())
        journal.append(1, *answer(1))
        assert not journal.is_done
    with Journal.open(path) as journal:
        assert not journal.is_done
        journal.resume(parts())
        assert journal.outcome == {"num_failed": 1}
        assert [record.answer for record in journal.in_order()] == [answer(0)[0], answer(1)[0]]
        journal.mark_done({"num_failed": 0})
    assert path.read_bytes().count(b"\n") == 1


def test_a_torn_done_line_is_not_done(tmp_path: Path) -> None:
    """Killed while it says so, the job says it again."""
    path = tmp_path / "j"
    with Journal.open(path) as journal:
        journal.resume(parts())
        journal.append(0, *answer(0))
        journal.mark_done({"num_failed": 1}, keep_records=True)
    path.write_bytes(path.read_bytes()[:-3])
    with Journal.open(path) as journal:
        assert not journal.is_done
        journal.resume(parts())
        assert len(journal) == 1


def test_a_full_disk_is_an_error_and_leaves_whole_lines(tmp_path: Path) -> None:
    """An append that finds no room takes nothing, says so, and what was there before is safe."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    write(tmp_path / "j", [answer(0)])
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "j").stat().st_size + 400, hard))
        try:
            with pytest.raises(JobError, match="1 finished requests are safe"):
                journal.append(1, *answer(1, "long " * 100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        journal.append(1, *answer(1, "short"))
    assert read(tmp_path / "j") == [answer(0), answer(1, "short")]


@pytest.mark.parametrize("content", ["my notes", "{", '{"id": 1}\n{"id": 2}\n'])
def test_a_foreign_file_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "j"
    path.write_text(content)
    if content == "{":  # the beginning of a header that was torn looks like this, too: nothing is lost but a brace
        Journal.open(path).close()
        return
    with pytest.raises(JobError, match="no journal of lengthwise"):
        Journal.open(path, overwrite=True)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"lengthwise_journal": 99}\n', "format 99"),
        ('{"lengthwise_journal": 1, "state": "open", "fingerprint": {}, "outcome": {}}\n', "format 1, .* knows 2"),
        ('{"lengthwise_journal": 2, "stat\n', "line 1 is unreadable"),
    ],
)
def test_an_unknown_header_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "j").write_text(content)
    with pytest.raises(JobError, match=said):
        Journal.open(tmp_path / "j")
    Journal.open(tmp_path / "j", overwrite=True).close()


def test_a_job_that_never_began_leaves_no_file(tmp_path: Path) -> None:
    Journal.open(tmp_path / "j").close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="can't be opened"):
        Journal.open(tmp_path / "nowhere" / "j")


def test_overwriting_throws_nothing_away_before_it_begins_anew(tmp_path: Path) -> None:
    """Opened to be overwritten and closed again, a journal is as it was; `resume` empties it."""
    write(tmp_path / "j", [answer(0), answer(1)])
    before = (tmp_path / "j").read_bytes()
    with Journal.open(tmp_path / "j", overwrite=True) as journal:
        assert journal.header is None
        journal.check(parts(seed=5))
    assert (tmp_path / "j").read_bytes() == before
    with Journal.open(tmp_path / "j", overwrite=True) as journal:
        journal.resume(parts())
        assert len(journal) == 0
    assert read(tmp_path / "j") == []


def _full(*args: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("refused", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_end_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Marking a job done either works, or leaves the records as they are and nothing beside them."""
    write(tmp_path / "j", [answer(0)])
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        with monkeypatch.context() as patched:
            patched.setattr(os, refused, _full)
            with pytest.raises(JobError, match=r"No space left.* 1 finished requests are safe; make room"):
                journal.mark_done({})
    assert [path.name for path in tmp_path.iterdir()] == ["j"]
    assert read(tmp_path / "j") == [answer(0)]


@pytest.mark.parametrize("refused", ["fsync", "ftruncate"])
def test_a_disk_that_refuses_the_beginning_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """The first line and the emptying of an old journal."""
    journal = Journal.open(tmp_path / "j")
    with monkeypatch.context() as patched:
        patched.setattr(os, refused, _full)
        with pytest.raises(JobError, match="make room"):
            journal.reset() if refused == "ftruncate" else journal.resume(parts())
    journal.close()


def test_a_last_flush_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing raises it, with the lock given back."""
    journal = Journal.open(tmp_path / "j")
    journal.resume(parts())
    journal.append(0, *answer(0))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _full)
        with pytest.raises(JobError, match="can't be flushed"):
            journal.close()
    assert read(tmp_path / "j") == [answer(0)]
