"""`lengthwise run`: exit codes, the summary, and what goes to stdout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lengthwise.cli import main
from lengthwise.cli.engines import EngineChoice
from lengthwise.cli.engines import asked_for as asked_for_choice
from lengthwise.engines.transformers import ModelOptions, RunOptions

SCRIPT = """
import sys
from lengthwise.cli import main, run
from lengthwise.engines.replay import ReplayConfig, ReplayEngine
from lengthwise.pipeline import Pipeline
from lengthwise.types import Capabilities

def open_pipeline(settings):
    lengths = {f"r{i}": 1 + i * 37 % 600 for i in range(30)}
    config = ReplayConfig(Capabilities(max_running=4), step_fixed_s=0.0004, is_paced=True)
    return Pipeline(engine=ReplayEngine(lengths, config), predictor="none", window=settings.job.window)

run.open_pipeline = open_pipeline
sys.exit(main(sys.argv[1:]))
"""


def read(answers: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answers.read_text().splitlines()]


@pytest.fixture
def answers(prompts: Path) -> Path:
    return prompts.with_name("answers.jsonl")


def test_a_file_in_a_file_out(replayed, prompts, answers, capsys) -> None:
    """Exit code 0, answers in input order, nothing on stdout, a sentence on stderr."""
    assert replayed("run", prompts, "-o", answers) == 0
    assert [row["id"] for row in read(answers)] == [f"r{i}" for i in range(30)]
    out, err = capsys.readouterr()
    assert out == ""
    assert "30 rows" in err


def test_failed_rows_are_code_1_also_the_second_time(replayed, prompts, answers, capsys) -> None:
    """The code speaks of the answers file: 1 if it holds an error, whether it was made now or before."""
    with prompts.open("a") as file:
        file.write('\n{"prompt": ""}\n{"id": "new", "prompt": "without a recorded length"}')
    assert replayed("run", prompts, "-o", answers) == 1
    assert "2 of them failed" in capsys.readouterr().err
    before = answers.read_bytes()
    assert replayed("run", prompts, "-o", answers) == 1
    told = capsys.readouterr().err
    assert "already complete" in told
    assert "--retry-failed" in told
    assert answers.read_bytes() == before


def test_a_finished_job_is_done_without_loading_a_model(replayed, prompts, answers, monkeypatch, capsys) -> None:
    """The same command again: exit code 0, nothing is done, no model is loaded."""
    assert replayed("run", prompts, "-o", answers) == 0
    monkeypatch.setattr("lengthwise.cli.run.open_pipeline", lambda settings: pytest.fail("a model is loaded"))
    assert replayed("run", prompts, "-o", answers) == 0
    assert "already complete" in capsys.readouterr().err


def test_a_template_counts_by_its_content(replayed, prompts, answers, capsys) -> None:
    """A copy of the file is the same template, an edited one is another."""
    first, copy = (prompts.with_name(name) for name in ("first.jinja", "copy.jinja"))
    for file in (first, copy):
        file.write_text("{{ messages }}")
    assert replayed("run", prompts, "-o", answers, "--chat-template", first) == 0
    assert replayed("run", prompts, "-o", answers, "--chat-template", copy) == 0
    assert "already complete" in capsys.readouterr().err
    first.write_text("Q {{ messages }}")
    assert replayed("run", prompts, "-o", answers, "--chat-template", first) == 2
    assert "chat_template was" in capsys.readouterr().err


def test_the_bundled_model_is_no_folder_of_that_name(tmp_path, monkeypatch) -> None:
    """`bundled` names it where there is no such folder; a finished job of the one is none of the other."""
    monkeypatch.chdir(tmp_path)

    def asked_for(model: ModelOptions) -> str:
        return asked_for_choice(EngineChoice(model, RunOptions()))

    bundled = asked_for(ModelOptions())
    assert asked_for(ModelOptions("bundled")) == bundled
    (tmp_path / "bundled").mkdir()
    assert asked_for(ModelOptions()) == bundled != asked_for(ModelOptions("bundled"))
    assert asked_for(ModelOptions("./bundled")) == asked_for(ModelOptions(str(tmp_path / "bundled")))


def test_json_is_one_line_on_stdout(replayed, prompts, answers, capsys) -> None:
    """The summary has all figures, and stdout nothing else."""
    assert replayed("run", prompts, "-o", answers, "--json", "--schedule", "paper", "--predictor", "constant:80") == 0
    out, _ = capsys.readouterr()
    summary = json.loads(out)
    tokens = sum(row["usage"]["completion_tokens"] for row in read(answers))
    assert out.count("\n") == 1
    assert (
        summary.items()
        >= {
            "status": "done",
            "requests": 30,
            "finished": 30,
            "failed": 0,
            "resumed": 0,
            "completion_tokens": tokens,
            "schedule": "paper",
            "predictor": "constant:80",
        }.items()
    )
    assert summary["recomputed_tokens"] == sum(row["usage"]["recomputed_tokens"] for row in read(answers)) > 0
    assert summary["requests_per_s"] > 0
    assert summary["wall_s"] >= summary["predict_s"] >= 0
    assert summary["engine"]["model"] == "replay"


def test_quiet_says_nothing(replayed, prompts, answers, capsys) -> None:
    """With --quiet only errors are said."""
    assert replayed("run", prompts, "-o", answers, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert replayed("run", prompts, "-o", answers, "--seed", "5", "--quiet") == 2
    assert "seed was 0 and is 5 now" in capsys.readouterr().err


def test_options_reach_the_requests(replayed, prompts, answers) -> None:
    """The job's limit and format hold where a row says nothing."""
    assert replayed("run", prompts, "-o", answers, "--max-tokens", "50") == 0
    assert max(row["usage"]["completion_tokens"] for row in read(answers)) == 50
    assert replayed("run", prompts, "-o", answers, "--input-format", "text", "--overwrite") == 1
    assert [row["id"] for row in read(answers)] == [str(i) for i in range(1, 31)], "ids are line numbers"


def test_a_job_with_other_settings_is_refused(replayed, prompts, answers, capsys) -> None:
    """Answers that are there for other settings are not mixed or written over, unless asked for."""
    assert replayed("run", prompts, "-o", answers) == 0
    assert replayed("run", prompts, "-o", answers, "--max-tokens", "50") == 2
    assert "max_tokens was 512 and is 50 now" in capsys.readouterr().err
    assert replayed("run", prompts, "-o", answers, "--max-tokens", "50", "--overwrite") == 0


COMMAND = [sys.executable, "-c", SCRIPT, "run"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as for most people


def wait_for_records(answers: Path, num: int, process: subprocess.Popen[str]) -> None:
    journal = answers.with_name(answers.name + ".journal")
    while not (journal.exists() and journal.read_bytes().count(b"\n") > num):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_what_runs_finish(prompts, answers, number: signal.Signals, code: int) -> None:
    """The first SIGINT or SIGTERM starts nothing new, and ends the run with its code when what runs is finished; the
    next run does the rest only."""
    command = [*COMMAND, str(prompts), "-o", str(answers), "--json", "--window", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_records(answers, 4, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "what runs is finished" in err
    assert "Run the same command again to go on" in err
    assert "Traceback" not in err
    finished = json.loads(out)
    assert finished["status"] == "interrupted"
    assert 4 <= finished["finished"] < 30
    assert not answers.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["resumed"] == finished["finished"]
    assert f"30 rows, {finished['finished']} from before" in done.stderr
    assert [row["id"] for row in read(answers)] == [f"r{i}" for i in range(30)]


def test_a_second_signal_stops_at_once(prompts, answers) -> None:
    """Whoever asks twice does not wait for long answers; what is finished is kept."""
    slow = SCRIPT.replace("step_fixed_s=0.0004", "step_fixed_s=0.01")  # up to six seconds an answer
    command = [sys.executable, "-c", slow, "run", str(prompts), "-o", str(answers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_records(answers, 2, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        told = process.stderr.readline()
        asked_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=20)[1]
    assert "what runs is finished" in told
    assert process.returncode == 130
    assert err.endswith("lengthwise: Interrupted; what is finished is kept. Run the same command again to go on.\n")
    assert "Traceback" not in err
    assert time.monotonic() - asked_s < 3
    assert subprocess.run([*COMMAND, *command[4:]], check=False).returncode == 0


def test_prompts_come_through_a_pipe(answers) -> None:
    """`-` reads standard input; answers are written while more is to come, and a signal ends the wait for it."""
    command = [*COMMAND, "-", "-o", str(answers)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write("".join(f'{{"id": "r{i}", "prompt": "Hi."}}\n' for i in range(4)))
        process.stdin.flush()
        wait_for_records(answers, 4, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr is not None
        assert "Fatal" not in process.stderr.read()
    fed = "".join(f'{{"id": "r{i}", "prompt": "Hi."}}\n' for i in range(30))
    done = subprocess.run([*command, "--json"], input=fed, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["resumed"] == 4
    assert [row["id"] for row in read(answers)] == [f"r{i}" for i in range(30)]


def test_answers_go_through_a_pipe(prompts) -> None:
    """`-o -` writes each answer to stdout when it is there, and all else to stderr."""
    command = [*COMMAND, str(prompts), "-o", "-", "--as-completed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert sorted(ids) == sorted(f"r{i}" for i in range(30))
    assert ids != [f"r{i}" for i in range(30)]
    assert "Standard output: 30 rows" in done.stderr
    assert [path.name for path in prompts.parent.iterdir()] == ["prompts.jsonl"]


def test_a_pipe_that_is_closed_ends_the_run(prompts) -> None:
    """`| head -1` has its line; the command ends with the code of a broken pipe and one sentence."""
    command = [*COMMAND, str(prompts), "-o", "-", "--as-completed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=BUFFERED) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["id"] == "r0"
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=20) == 141
    assert err.startswith("lengthwise: Whoever read the answers is gone: stopped after")
    assert err.count("\n") == 1


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "closed"])
def test_nobody_hears_what_is_said(prompts, answers, is_full: bool) -> None:
    """`2>&1 | tee log` that Ctrl-C ends, or a log on a full disk: the job goes on to its end, stdout is untouched, and
    the exit code is its own."""
    talkative = SCRIPT.replace(
        "run.open", "from lengthwise.cli import progress; progress.LINE_INTERVAL_S = 0.01; run.open"
    )
    command = [sys.executable, "-c", talkative, "run", str(prompts), "-o", str(answers), "--json", "--window", "2"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open("/dev/full" if is_full else write_end, "w") as err:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, env=BUFFERED) as process:
            wait_for_records(answers, 4, process)
            process.send_signal(signal.SIGINT)
            interrupted = json.loads(process.communicate(timeout=20)[0])
        assert process.returncode == 130
        assert 4 <= interrupted["finished"] < 30, "what ran was finished, and nothing new was started"
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=err, text=True, check=True, env=BUFFERED)
    assert json.loads(done.stdout)["resumed"] == interrupted["finished"]


@pytest.mark.parametrize(
    ("options", "stdout", "said"),
    [
        ("-o - --as-completed", ">/dev/full", "can't be written (No space left on device), so answers are lost"),
        ("-o - --as-completed", ">&-", "Standard output is closed"),
        ("-o ANSWERS --json --quiet", ">/dev/full", "line of --json can't be written"),
        ("-o ANSWERS --json", ">&-", "Standard output is closed"),
    ],
)
def test_stdout_that_takes_nothing(prompts, answers, options: str, stdout: str, said: str) -> None:
    """One sentence, code 2."""
    command = ["sh", "-c", f'"$@" {options.replace("ANSWERS", str(answers))} {stdout}', "sh", *COMMAND, str(prompts)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
@pytest.mark.parametrize(("hold", "code"), [("_hold_standard_streams()", 0), ("None", 1)])
def test_closed_streams_are_no_files_of_the_job(hold: str, code: int) -> None:
    """Their numbers are not given to the journal, into which warnings would be written then; left as they are, they
    would be."""
    whose = f"import os, sys; from lengthwise.cli import _hold_standard_streams; {hold}; "
    whose += "os.open('/dev/zero', os.O_RDONLY); opened = os.listdir('/proc/self/fd'); "
    whose += "links = [os.readlink(f'/proc/self/fd/{i}') for i in range(3) if str(i) in opened]; "
    whose += "os._exit(links != ['/dev/null'] * 3)"
    command = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", whose]
    assert subprocess.run(command, check=False).returncode == code


INTERRUPTING = """
import atexit, os, signal, sys

class Interrupting:
    def find_spec(self, name, *rest):
        if name == "lengthwise.cli.run" and sys.argv.pop() == "early":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from lengthwise.cli import main
code = main()
os.kill(os.getpid(), signal.SIGINT)
sys.exit(code)
"""


@pytest.mark.parametrize(("when", "code"), [("early", 130), ("late", 0)])
def test_ctrl_c_at_the_edges(when: str, code: int) -> None:
    """While modules are loaded it ends the command at once; when all is done and said, it changes nothing."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTING, "--version", when], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, "")


def test_ctrl_c_when_all_is_done(replayed, prompts, answers, monkeypatch, capsys) -> None:
    """It is too late: the code is that of the job."""

    def say(message: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        print(message, file=sys.stderr)

    monkeypatch.setattr("lengthwise.cli.run.say", say)
    assert replayed("run", prompts, "-o", answers) == 0
    assert "30 rows" in capsys.readouterr().err


def test_a_server_whose_model_was_not_named_is_asked(replayed, prompts, answers, monkeypatch) -> None:
    """A job that it has done is not taken for one of whatever it serves now."""
    server = ["--engine", "openai", "--base-url", "http://localhost:1/v1"]
    assert replayed("run", prompts, "-o", answers, *server) == 0
    monkeypatch.setattr("lengthwise.engines.replay.ReplayEngine.model", "another")
    assert replayed("run", prompts, "-o", answers, *server) == 2
    assert replayed("run", prompts, "-o", answers.with_name("named"), *server, "--model", "m") == 0
    monkeypatch.setattr("lengthwise.cli.run.open_pipeline", lambda settings: pytest.fail("it is asked"))
    assert replayed("run", prompts, "-o", answers.with_name("named"), *server, "--model", "m") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "-"], "give one with -o, or --as-completed"),
        (["-o", "-", "--as-completed", "--json"], "both go to standard output"),
        (["-o", "-", "--as-completed", "--retry-failed"], "--retry-failed needs answers that are in a file"),
        (["-o", "a.parquet", "--as-completed"], "can't grow line by line"),
        (["-o", "a", "--window", "0"], "window is 0"),
        (["-o", "a", "--base-url", "http://localhost"], "add --engine openai"),
        (["-o", "a", "--engine", "openai"], "give --base-url"),
    ],
)
def test_what_does_not_go_together(prompts, arguments, said, monkeypatch, capsys) -> None:
    """One sentence with the way out, code 2, and nothing is begun."""
    monkeypatch.chdir(prompts.parent)
    assert main(["run", str(prompts), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in prompts.parent.iterdir()] == ["prompts.jsonl"]


def test_failed_rows_are_answered_again(replayed, prompts, answers, capsys) -> None:
    """--retry-failed answers what ended as an error, and says how many were there from before."""
    with prompts.open("a") as file:
        file.write('\n{"id": "new", "prompt": "without a recorded length"}')
    assert replayed("run", prompts, "-o", answers) == 1
    assert replayed("run", prompts, "-o", answers, "--retry-failed") == 1
    assert "31 rows, 30 from before, 1 of them failed" in capsys.readouterr().err


def test_a_field_with_another_name(replayed, prompts, answers) -> None:
    """--prompt-field says which one is the prompt; --output-format what the answers look like."""
    prompts.write_text('{"custom": 1, "question": "Why?", "id": "r1"}')
    assert replayed("run", prompts, "-o", answers, "--prompt-field", "question") == 0
    assert read(answers)[0]["metadata"] == {"custom": 1}
    assert replayed("run", prompts, "-o", answers, "--prompt-field", "question", "--output-format", "parquet") == 2
    parquet = answers.with_suffix(".parquet")
    assert replayed("run", prompts, "-o", parquet, "--prompt-field", "question") == 0
    assert parquet.read_bytes().startswith(b"PAR1")


def test_ctrl_c_while_a_model_is_loaded(replayed, prompts, answers, monkeypatch, capsys) -> None:
    """Nothing was begun: code 130, one sentence, no file left behind."""

    def interrupted(settings: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("Python says so where it comes amid a class that is being made") from error

    monkeypatch.setattr("lengthwise.cli.run.open_pipeline", interrupted)
    assert replayed("run", prompts, "-o", answers) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in prompts.parent.iterdir()] == ["prompts.jsonl"]


def test_who_goes_on_is_told_to_leave_overwrite_out(replayed, prompts, answers, monkeypatch, capsys) -> None:
    """The same command again would begin again; a run that came to its end says nothing of it."""
    assert replayed("run", prompts, "-o", answers, "--overwrite") == 0
    assert "Leave --overwrite out" not in capsys.readouterr().err

    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lengthwise.journal.Journal.mark_done", interrupted)
        assert replayed("run", prompts, "-o", answers, "--overwrite") == 130
    assert "Leave --overwrite out" in capsys.readouterr().err
    monkeypatch.setattr("lengthwise.jobs.Job.run", interrupted)
    assert replayed("run", prompts, "-o", answers, "--overwrite") == 130
    assert "Leave --overwrite out" not in capsys.readouterr().err, "nothing of it was finished"


def test_a_pipe_gets_plain_lines(replayed, prompts, answers, monkeypatch, capsys) -> None:
    """Where stderr is no terminal, progress is a plain line now and then."""
    monkeypatch.setattr("lengthwise.cli.progress.LINE_INTERVAL_S", 0.0005)
    assert replayed("run", prompts, "-o", answers) == 0
    err = capsys.readouterr().err
    assert "of 30 requests" in err
    assert "\x1b" not in err


class TestOnARealModel:
    """The command on a real, tiny model with random weights."""

    def test_answers_and_errors(self, prompts, answers, chat_llama_dir, capfd) -> None:
        """Text, messages and instruction are answered; too long, and too much asked for, are error rows."""
        from lengthwise.cli import main

        rows = [
            {"prompt": "The weather and the sea."},
            {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 3},
            {"instruction": "Explain", "input": "a bicycle", "topic": "wheels"},
            {"prompt": "word " * 400},
            {"prompt": "Why?", "max_tokens": 9999},
            {"prompt": "Why?", "max_tokens": 0},
            {"prompt": "One of three", "temperature": 0.8},
        ]
        prompts.write_text("\n".join(map(json.dumps, rows)))
        arguments = ["run", str(prompts), "-o", str(answers), "--model", str(chat_llama_dir), "--max-tokens", "12"]
        assert main([*arguments, "--device", "cpu", "--batch-size", "4", "--json"]) == 1
        out, err = capfd.readouterr()
        assert json.loads(out)["failed"] == 3
        assert not any(word in err for word in ("Traceback", "Warning", "it/s", "%|")), err
        found = read(answers)
        assert [row["finish_reason"] == "error" for row in found] == [False, False, False, True, True, True, False]
        assert [found[i]["error"]["line"] for i in (3, 4, 5)] == [4, 5, 6]
        assert found[1]["usage"]["completion_tokens"] <= 3
        assert found[2]["metadata"] == {"topic": "wheels"}
        before = [row["text"] for row in found]
        assert main([*arguments, "--device", "cpu", "--batch-size", "1", "--overwrite"]) == 1
        assert [row["text"] for row in read(answers)] == before, "batch size and order change no answer"

    def test_a_model_that_changed_in_its_folder(self, prompts, answers, chat_llama_dir, make_model_dir, capsys) -> None:
        """Trained again in place, it is another model: its answers are not those that are there."""
        from lengthwise.cli import main

        folder = shutil.copytree(chat_llama_dir, prompts.parent / "model")
        prompts.write_text('{"prompt": "Why?", "max_tokens": 3}')
        arguments = ["run", str(prompts), "-o", str(answers), "--model", str(folder), "--device", "cpu"]
        assert main([*arguments, "--batch-size", "1"]) == 0
        assert main(arguments) == 0
        assert "already complete" in capsys.readouterr().err
        shutil.copy(make_model_dir("llama", seed=1) / "model.safetensors", folder)
        assert main(arguments) == 2
        assert "model was" in capsys.readouterr().err

    def test_overwriting_with_a_model_that_is_none(self, prompts, answers, chat_llama_dir, capsys) -> None:
        """A typo costs nothing: the answers of before are there, and known."""
        from lengthwise.cli import main

        prompts.write_text('{"prompt": "Why?", "max_tokens": 3}')
        arguments = ["run", str(prompts), "-o", str(answers), "--device", "cpu", "--batch-size", "1"]
        assert main([*arguments, "--model", str(chat_llama_dir)]) == 0
        before = answers.read_bytes()
        assert main([*arguments, "--model", "./typo", "--overwrite"]) == 2
        assert answers.read_bytes() == before
        assert main([*arguments, "--model", str(chat_llama_dir)]) == 0
        assert "already complete" in capsys.readouterr().err

    def test_a_model_that_is_none(self, prompts, answers, capsys) -> None:
        """A folder without a model is one sentence, and leaves nothing behind."""
        from lengthwise.cli import main

        empty = prompts.parent / "empty"
        empty.mkdir()
        assert main(["run", str(prompts), "-o", str(answers), "--model", str(empty)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert str(empty) in err
        assert sorted(path.name for path in prompts.parent.iterdir()) == ["empty", "prompts.jsonl"]
