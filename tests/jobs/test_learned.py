"""What a job teaches itself is kept beside its answers, is used when it goes on, and never stands in its way."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lengthwise.cli import main, run
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.jobs import Job, JobOptions, JobResult
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.cold_start.predictor import ColdStartPredictor
from lengthwise.predictors.constant import ConstantPredictor
from lengthwise.predictors.saved import load_predictor
from lengthwise.predictors.text.predictor import TextPredictor
from lengthwise.types import Capabilities, Completion, SamplingParams

NUM = 320
OPENINGS = {"Name the capital of": 8, "Write a long story about": 300}
RNG = random.Random(0)
PROMPTS = {f"r{i}": f"{RNG.choice(list(OPENINGS))} country {i % 40}." for i in range(NUM)}
LENGTHS = {
    name: round(OPENINGS[prompt.split(" country")[0]] * RNG.uniform(0.7, 1.4)) for name, prompt in PROMPTS.items()
}


class OtherModel(ReplayEngine):
    model = "another"


def pipeline(engine: type[ReplayEngine] = ReplayEngine, predictor: str = "auto") -> Pipeline:
    config = ReplayConfig(Capabilities(max_running=8), progress_interval_s=0.0)
    return Pipeline(engine=engine(LENGTHS, config), predictor=predictor, window=4096)


@pytest.fixture
def options(tmp_path: Path) -> JobOptions:
    rows = [json.dumps({"id": name, "prompt": prompt}) for name, prompt in PROMPTS.items()]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    return JobOptions(tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl")


def done(options: JobOptions, made: Pipeline) -> tuple[JobResult, Any]:
    with Job.open(options) as job, made:
        return job.run(made), made.predictor


def folder(options: JobOptions) -> Path:
    return options.answers.with_name("answers.jsonl.predictor")


def test_what_was_learned_stands_beside_the_answers(options: JobOptions):
    """From all of them, for this model, with how good it was on answers that it had not seen; any run may take it."""
    result, _ = done(options, pipeline())
    assert result.status == "done"
    saved = load_predictor(folder(options))
    assert isinstance(saved, TextPredictor)
    assert saved.model == "replay"
    assert saved.learned_from.num_examples == NUM
    assert saved.card["learned_by"] == "run"
    assert saved.card["tau_held_out"] > 0.3
    with pipeline(predictor=str(folder(options))) as other:
        assert isinstance(other.predictor, TextPredictor)


def test_a_job_that_goes_on_knows_what_it_had_learned(options: JobOptions, caplog):
    """Stopped after it has learned: the saved predictor is there, and the first answers of the second run have an
    estimate."""
    with Job.open(options) as job, pipeline() as made:

        class Stopping(Pipeline):
            def stream(self, requests: Any, in_order: bool = False) -> Iterator[Completion]:
                for position, completion in enumerate(made.stream(requests)):
                    if position == 200:
                        return
                    yield completion

        assert job.run(Stopping(engine=made.engine, predictor=made.predictor)).status == "interrupted"
    before = load_predictor(folder(options))
    assert isinstance(before, TextPredictor)
    assert 100 <= before.learned_from.num_examples <= 220
    with caplog.at_level(logging.INFO):
        result, predictor = done(options, pipeline())
    assert (result.status, result.num_resumed) == ("done", 200)
    assert "learned before" in caplog.text
    rows = [json.loads(line) for line in options.answers.read_text().splitlines()]
    assert len(rows) == NUM
    after = load_predictor(folder(options))
    assert isinstance(after, TextPredictor)
    assert after.learned_from.num_examples >= 120 or predictor.learned is before


def test_a_job_that_begins_anew_learns_anew(options: JobOptions):
    """`overwrite` throws away what was learned, too: the job may be another one."""
    done(options, pipeline())
    _, learner = done(replace(options, overwrite=True), pipeline())
    assert learner.switched_at is not None, "it learned again, and switched over by its own answers"


def test_answers_and_journal_are_the_same_with_and_without(options: JobOptions, tmp_path: Path):
    """The predictor decides an order and nothing else, and is no part of what makes a job the same."""
    done(options, pipeline())
    learned = [json.loads(line) for line in options.answers.read_text().splitlines()]
    options = JobOptions(options.prompts, tmp_path / "plain.jsonl")
    done(options, pipeline(predictor="none"))
    plain = [json.loads(line) for line in options.answers.read_text().splitlines()]
    assert [(row["id"], row["text"]) for row in learned] == [(row["id"], row["text"]) for row in plain]
    assert not options.answers.with_name("plain.jsonl.predictor").exists()


@pytest.fixture
def broken_folders(options: JobOptions) -> dict[str, Callable[[], None]]:
    place = folder(options)

    def of_another_model() -> None:
        ConstantPredictor.fit([5, 6], model="another").save(place)

    def damaged() -> None:
        place.mkdir()
        (place / "predictor.json").write_text("{")

    def of_somebody() -> None:
        place.mkdir()
        (place / "notes.txt").write_text("mine")

    return {"another": of_another_model, "damaged": damaged, "file": lambda: place.write_text("x"), "mine": of_somebody}


@pytest.mark.parametrize("name", ["another", "damaged", "file", "mine"])
def test_what_stands_in_its_place_stays_and_stops_nothing(options: JobOptions, broken_folders, name, caplog):
    """A predictor of another model, damaged, no folder at all, somebody's own: not used, not touched, said."""
    broken_folders[name]()

    def content() -> dict[str, bytes]:
        files = [folder(options)] if folder(options).is_file() else folder(options).iterdir()
        return {path.name: path.read_bytes() for path in files}

    before = content()
    result, predictor = done(options, pipeline())
    assert result.status == "done"
    assert isinstance(predictor.learned, TextPredictor)
    assert content() == before
    assert "not kept" in caplog.text


def test_a_folder_that_can_not_be_written_costs_no_job(options: JobOptions, monkeypatch, caplog):
    """A full disk, say."""

    def full(self: TextPredictor, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TextPredictor, "save", full)
    result, _ = done(options, pipeline())
    assert result.status == "done"
    assert "No space left" in caplog.text


def test_half_written_ones_are_written_again(options: JobOptions):
    """A run that was killed while it saved has left no header."""
    done(options, pipeline())
    (folder(options) / "predictor.json").unlink()
    options.answers.unlink()
    done(options, pipeline())
    assert isinstance(load_predictor(folder(options)), TextPredictor)


def test_a_predictor_that_was_given_is_left_alone(options: JobOptions):
    """Nothing is learned beside it, and nothing saved."""
    _, predictor = done(options, pipeline(predictor="constant:50"))
    assert isinstance(predictor, ConstantPredictor)
    assert not folder(options).exists()


def test_the_command_says_what_was_learned(options: JobOptions, monkeypatch, capsys):
    """In one line for people, and in the line of --json; `null` where nothing was to be learned."""
    monkeypatch.setattr(run, "open_pipeline", lambda settings: pipeline(predictor=settings.predictor))
    log = logging.getLogger("lengthwise")
    handlers, level = log.handlers, log.level
    try:
        assert main(["run", str(options.prompts), "-o", str(options.answers), "--json"]) == 0
        out, err = capsys.readouterr()
        assert err.count("Lengths are learned from") == 1
        learned = json.loads(out)["learned"]
        assert learned["kind"] == "text"
        assert learned["learned_from"] == NUM
        assert 100 <= learned["switched_at"] < NUM
        assert learned["tau_held_out"] > 0.3
        other = options.answers.with_name("other.jsonl")
        assert main(["run", str(options.prompts), "-o", str(other), "--json", "--predictor", "none"]) == 0
        assert json.loads(capsys.readouterr().out)["learned"] is None
    finally:
        log.handlers = handlers
        log.setLevel(level)


def test_a_loaded_one_of_another_model_is_learned_anew(options: JobOptions):
    """The model's identity decides."""
    done(options, pipeline())
    options.answers.unlink()
    Path(f"{options.answers}.journal").unlink()
    _, predictor = done(options, pipeline(OtherModel))
    assert isinstance(predictor, ColdStartPredictor)
    assert predictor.learned is not None
    assert load_predictor(folder(options)).model == "another"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"max_tokens": 64}, "max_tokens 512 (here 64)"),
        ({"sampling": SamplingParams(temperature=0.7)}, "temperature 0.0 (here 0.7)"),
        ({"sampling": SamplingParams(stop=("end",))}, "stop [] (here ['end'])"),
    ],
)
def test_what_was_learned_with_other_settings_is_not_used(options: JobOptions, changed, told, caplog):
    """Another limit, another temperature: answers have other lengths. It is said, and what is learned anew takes its
    place; so the next job of those settings goes on from it, whatever its seed."""
    done(options, pipeline())
    removed(options)
    with caplog.at_level(logging.INFO):
        _, learner = done(replace(options, **changed), pipeline())
    assert "learned anew" in caplog.text
    assert told in caplog.text
    assert learner.switched_at is not None
    removed(options)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        done(replace(options, **changed, seed=9), pipeline())
    assert "learned before" in caplog.text


def removed(options: JobOptions) -> None:
    """What a job left but the predictor."""
    options.answers.unlink()
    Path(f"{options.answers}.journal").unlink()
