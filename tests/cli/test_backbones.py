"""Predictors that ask a language model, from the command line: loaded here, behind a server, or the engine's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lengthwise.bundled import MODEL_DIR
from lengthwise.cli import main
from lengthwise.engines.transformers import ModelOptions, RunOptions, open_engine
from lengthwise.errors import PredictorError
from lengthwise.pipeline import Pipeline
from lengthwise.predictors.folder import write_header
from lengthwise.predictors.prompted.predictor import PromptedPredictor
from lengthwise.predictors.prompted.question import QUESTIONS
from tests.engines.openai.server import ScriptedServer, answer

TASKS = [f"Say {4 + i % 7 * 9} words." for i in range(60)]


def stating(call):
    """Half of the number in the prompt, when it is asked for its length; else as many words."""
    num = int(re.search(r"\d+", call.prompt)[0])
    is_question = any(question in call.prompt for question in QUESTIONS.values())
    return answer(call, text=f"About {num // 2} tokens.") if is_question else answer(call, text="word " * num)


@pytest.fixture
def server():
    with ScriptedServer(stating) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": task, "length": int(task.split()[1])} for task in TASKS]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def command(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_a_server_is_asked_from_training_to_the_run(server, data, tmp_path, capsys):
    """`train po`, `score`, `predict`, `calibrate` and `run`: what its numbers are worth is learned, and used."""
    asked = ("--base-url", server.url)
    assert command("train", "po", data, "-o", tmp_path / "po", *asked) == 0
    capsys.readouterr()
    assert command("score", tmp_path / "po", data, *asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failure_ratio"] == 0
    assert found["mae"] < 3
    assert command("score", "po", data, *asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["mae"] > 10  # half of the truth
    assert command("predict", data, "--predictor", tmp_path / "po", *asked) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(abs(row["p50"] - int(task.split()[1])) <= 4 for row, task in zip(rows, TASKS, strict=True))
    assert command("calibrate", "pia", data, "-o", tmp_path / "calibrated", *asked) == 0
    answers = tmp_path / "answers.jsonl"
    run = ("run", data, "-o", answers, "--engine", "openai", *asked, "--predictor")
    for predictor in (tmp_path / "po", tmp_path / "calibrated", "po", "pia"):
        assert command(*run, predictor, "--overwrite") == 0
        texts = [json.loads(line)["text"] for line in answers.read_text().splitlines()]
        assert [len(text.split()) for text in texts] == [int(task.split()[1]) for task in TASKS]


def test_a_predictor_of_another_model_is_refused(server, data, tmp_path, capsys):
    """With both names: what one model's numbers are worth says nothing of another's."""
    assert command("train", "po", data, "-o", tmp_path / "po", "--base-url", server.url) == 0
    capsys.readouterr()
    assert command("score", tmp_path / "po", data) == 2
    said = capsys.readouterr().err
    assert "served:toy" in said
    assert "llama-3.7M" in said


def test_what_looks_into_a_model_can_not_use_a_server(server, data, tmp_path, capsys):
    """Which is said before anything is asked, with the way out."""
    write_header(tmp_path, "pooling", {"model": "served:toy"})
    for arguments in (
        ("score", tmp_path, data, "--base-url", server.url),
        ("predict", data, "--predictor", tmp_path, "--base-url", server.url),
        ("run", data, "-o", tmp_path / "a", "--engine", "openai", "--base-url", server.url, "--predictor", tmp_path),
    ):
        assert command(*arguments) == 2
        said = capsys.readouterr().err
        assert "needs the states of its layers" in said
        assert "--model" in said
    assert not server.calls


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("score", "constant:9", "DATA", "--model", "somewhere"), "--model is an option for predictors that ask"),
        (
            ("score", "constant:9", "DATA", "--base-url", "http://x/v1"),
            "--base-url is an option for predictors that ask",
        ),
        (("train", "constant", "DATA", "-o", "OUT", "--model", "x"), "--model is an option for predictors that ask"),
        (
            ("predict", "DATA", "--predictor", "constant:9", "--chat-template", "none"),
            "--chat-template is an option for",
        ),
        (("score", "po", "DATA", "--api-key-env", "KEY"), "--api-key-env is an option of servers; add --base-url"),
        (("score", "po", "DATA", "--base-url", "http://x/v1", "--chat-template", "vicuna"), "servers have their own"),
        (("score", "po", "DATA", "--model", "./nowhere"), "does not exist"),
        (("calibrate", "none", "DATA", "-o", "OUT"), "can't be saved"),
        (("calibrate", "poo", "DATA", "-o", "OUT"), "There is no predictor 'poo'"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, said, data, tmp_path, capsys):
    """None is passed over in silence."""
    places = {"DATA": data, "OUT": tmp_path / "out"}
    assert command(*(places.get(argument, argument) for argument in arguments)) == 2
    assert said in capsys.readouterr().err


def test_the_engine_s_own_model_is_asked(data, tmp_path):
    """`Pipeline(predictor="po")`: answers are those without it, and the time that it takes is counted."""
    prompts = TASKS[:6]

    def opened():
        return open_engine(ModelOptions(str(MODEL_DIR)), RunOptions(max_tokens=24, batch_size=4))

    with Pipeline(engine=opened(), predictor="none") as pipeline:
        expected = [answer.text for answer in pipeline.run(prompts)]
    with Pipeline(engine=opened(), predictor="po") as pipeline:
        assert isinstance(pipeline.predictor, PromptedPredictor)
        found = pipeline.run(prompts)
        assert [answer.text for answer in found] == expected
        assert pipeline.predictor.num_asked == len(prompts)
        assert pipeline.counts.predict_s > 0
        assert any(answer.predicted for answer in found)


def test_an_engine_without_a_model_can_not_be_asked(replayed, prompts, tmp_path, capsys):
    """Recorded lengths, for instance."""
    assert replayed("run", prompts, "-o", tmp_path / "answers.jsonl", "--predictor", "po") == 2
    assert "`po` asks a language model" in capsys.readouterr().err


def test_run_asks_the_model_that_answers(data, tmp_path):
    """From the command line, too; the answers are those without."""
    texts = {}
    for predictor in ("none", "pia"):
        out = tmp_path / f"{predictor}.jsonl"
        assert command("run", data, "-o", out, "--predictor", predictor, "--max-tokens", 8, "--batch-size", 16) == 0
        texts[predictor] = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert texts["pia"] == texts["none"]


def test_a_missing_adapter_ends_the_pipeline_before_it_runs(tiny_llama_dir):
    """As an error, and not as a run without estimates."""
    engine = open_engine(ModelOptions(str(tiny_llama_dir)), RunOptions(batch_size=2))
    with pytest.raises(PredictorError, match="no such folder"):
        Pipeline(engine=engine, predictor="po:./nowhere")
