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
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.errors import JobError
from lengthwise.journal import Fingerprint, Journal, files, fingerprint
from lengthwise.types import Completion, ErrorInfo, PredictedTokens, SamplingParams


def parts(**changes: object) -> Fingerprint:
    settings: dict[str, object] = {
        "input_sha256": "ab" * 32,
        "input_format": "jsonl",
        "model": "tiny@1",
        "sampling": SamplingParams(stop=("END",)),
        "max_tokens": 64,
        "seed": 0,
        "chat_template": None,
    }
    return fingerprint(**{**settings, **changes})  # type: ignore[arg-type]


def answer(index: int, text: str = "An answer.") -> Completion:
    return Completion(f"r{index}", text, "stop", 5, 7 + index, 2, PredictedTokens(8.5, float("inf")))


def test_metadata_and_token_ids_are_left_out(tmp_path: Path) -> None:
    """The input has the one, and an answer is its text: neither is stored twice."""
    write(tmp_path / "j", [replace(answer(0), metadata={"topic": "tea"}, tokens=(1, 2))])
    assert read(tmp_path / "j") == [answer(0)]


completions = st.builds(
    Completion,
    id=st.text(),
    text=st.text(),
    finish_reason=st.sampled_from(["stop", "length", "error"]),
    prompt_tokens=st.integers(0, 9999),
    completion_tokens=st.integers(0, 9999),
    recomputed_tokens=st.integers(0, 9999),
    predicted=st.none() | st.builds(PredictedTokens, st.floats(0, allow_nan=False), st.floats(0, allow_nan=False)),
    error=st.none() | st.builds(ErrorInfo, st.text(), st.text(), st.none() | st.integers(1)),
)


def write(path: Path, answers: list[Completion], given: Fingerprint | None = None) -> None:
    with Journal.open(path) as journal:
        journal.resume(parts() if given is None else given)
        for completion in answers:
            journal.append(len(journal), completion)


def read(path: Path) -> list[Completion]:
    """All that a resumed journal holds, by index."""
    with Journal.open(path) as journal:
        journal.resume(parts())
        return [journal.read(index) for index in range(len(journal))]


MEMORY = Path("/dev/shm")  # flushing hundreds of files to a busy disk takes half a minute


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


@settings(deadline=None)  # a busy disk is slow at times
@given(st.lists(completions, max_size=5))
def test_what_is_appended_is_recovered(answers: list[Completion]) -> None:
    """Any completion comes back equal, in any text, after the journal was closed."""
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
                journal.append(index, answers[index])
        assert read(path) == answers


def test_an_append_is_in_the_file_when_it_returns(tmp_path: Path) -> None:
    """A killed process loses nothing that was appended: the line is with the operating system at once."""
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        journal.append(3, answer(3))
        last = (tmp_path / "j").read_bytes().splitlines()[-1]
        assert json.loads(last)["index"] == 3


def test_the_disk_has_it_a_second_later(tmp_path: Path) -> None:
    """Power loss costs about the last second: a thread flushes to the disk while nothing more is appended."""
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        journal.append(0, answer(0))
        time.sleep(1.5)
        assert journal._syncer is not None
        assert not journal._syncer.is_dirty


def test_a_doubled_index_counts_once_and_the_first_wins(tmp_path: Path) -> None:
    write(tmp_path / "j", [answer(0)])
    line = (tmp_path / "j").read_bytes().splitlines(keepends=True)[1]
    with (tmp_path / "j").open("ab") as file:
        file.write(line.replace(b"An answer.", b"Another."))
    assert [one.text for one in read(tmp_path / "j")] == ["An answer."]


@pytest.mark.parametrize(
    "damage", [b"\x00\x00\x00\n", b'{"index": 0}\n', b'{"index": "0", "completion": {}}\n', b"[]\n"]
)
def test_an_unreadable_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "j"
    write(path, [answer(0), answer(1), answer(2)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage, *lines[3:]]))
    with pytest.raises(JobError, match=r"line 3 is unreadable.*Delete that line.*--overwrite"):
        read(path)


def test_failures_are_counted_across_a_resume(tmp_path: Path) -> None:
    failed = Completion("r1", "", "error", error=ErrorInfo("prompt_too_long", "Too long."))
    write(tmp_path / "j", [answer(0), failed])
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        assert (len(journal), journal.num_failed) == (2, 1)


CHANGES = {
    "input": {"input_sha256": "cd" * 32},
    "input_format": {"input_format": "text"},
    "model": {"model": "tiny@2"},
    "temperature": {"sampling": SamplingParams(temperature=0.7, stop=("END",))},
    "stop": {"sampling": SamplingParams(stop=("FIN",))},
    "max_tokens": {"max_tokens": 32},
    "seed": {"seed": 1},
    "chat_template": {"chat_template": "vicuna"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_job_is_refused_by_the_name_of_what_differs(tmp_path: Path, name: str) -> None:
    """A mismatch names the part, both values and the ways out; the journal is left as it was."""
    write(tmp_path / "j", [answer(0)])
    before = (tmp_path / "j").read_bytes()
    told = "the prompts file was changed.*" if name == "input" else rf"{name} was .* and is .* now"
    with pytest.raises(JobError, match=rf"settings: {told}\. .*-o, or --overwrite"):
        write(tmp_path / "j", [], parts(**CHANGES[name]))
    assert (tmp_path / "j").read_bytes() == before


def test_every_sampling_parameter_is_in_the_fingerprint() -> None:
    """Each default that changes answers changes the fingerprint, those that will be added too."""
    for name, value in {
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 5,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "stop": ("x",),
    }.items():
        assert parts(sampling=replace(SamplingParams(), **{name: value})) != parts(sampling=SamplingParams())
    assert {*SamplingParams.__dataclass_fields__} - {*parts()} == set(), "a new parameter must come in"


def test_without_a_model_the_rest_is_checked(tmp_path: Path) -> None:
    """Before a model is loaded, all other differences are already found."""
    write(tmp_path / "j", [answer(0)])
    with Journal.open(tmp_path / "j") as journal:
        journal.check(parts(model=None))
        with pytest.raises(JobError, match="max_tokens was 64 and is 32"):
            journal.check(parts(model=None, max_tokens=32))


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


def test_a_full_disk_is_an_error_and_leaves_whole_lines(tmp_path: Path) -> None:
    """An append that finds no room takes nothing, says so, and what was there before is safe."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    write(tmp_path / "j", [answer(0)])
    with Journal.open(tmp_path / "j") as journal:
        journal.resume(parts())
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "j").stat().st_size + 400, hard))
        try:
            with pytest.raises(JobError, match="1 finished requests are safe"):
                journal.append(1, answer(1, "long " * 100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        journal.append(1, answer(1, "short"))
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
    [('{"lengthwise_journal": 99}\n', "format 99"), ('{"lengthwise_journal": 1, "stat\n', "line 1 is unreadable")],
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
    journal.append(0, answer(0))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _full)
        with pytest.raises(JobError, match="can't be flushed"):
            journal.close()
    assert read(tmp_path / "j") == [answer(0)]
