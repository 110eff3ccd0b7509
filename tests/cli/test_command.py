"""The command as a whole: its face is fast, and what is wrong is one sentence and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lengthwise
from lengthwise.cli import main, options
from lengthwise.scheduling import named

SCRIPT = [sys.executable, "-m", "lengthwise.cli"]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"]])
def test_its_face_loads_no_torch_and_is_fast(arguments: list[str]) -> None:
    """Help and version take less than half a second of processor time and load nothing heavy."""
    code = (
        "import resource, sys; from lengthwise.cli import main; code = main(sys.argv[1:]);"
        "used = resource.getrusage(resource.RUSAGE_SELF);"
        "heavy = sorted({'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules));"
        "print(code, heavy, used.ru_utime + used.ru_stime, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    exit_code, heavy, used_s = done.stderr.rsplit(" ", 2)
    assert (exit_code, heavy) == ("0", "[]")
    assert float(used_s) < 0.5 * 3, "0.3 s on an idle machine; a loaded one shares caches and clock"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The installed version, on stdout."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lengthwise {lengthwise.__version__}\n"


@pytest.mark.parametrize("command", ["run", "predict"])
def test_help_names_every_option_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Help goes to stdout with exit code 0."""
    assert main([command, "--help"]) == 0
    said = capsys.readouterr()
    assert "--predictor" in said.out
    assert said.err == ""


WRONG = [
    (["run", "{prompts}", "-o", "{answers}", "--colour"], "No such option: --colour. See `lengthwise run --help`."),
    (["run", "{prompts}"], "Missing option '-o'"),
    (["run"], "Missing argument"),
    (["walk"], "No such command 'walk'"),
    (["--loud"], "No such option: --loud"),
    (
        ["run", "{prompts}", "-o", "{answers}", "--max-tokens", "many"],
        "'--max-tokens': Input should be a valid integer",
    ),
    (["run", "{prompts}", "-o", "{answers}", "--max-tokens", "0"], "max_tokens is 0; it must be 1 or more"),
    (["run", "{prompts}", "-o", "{answers}", "--temperature", "nan"], "temperature is nan"),
    (["run", "{prompts}", "-o", "{answers}", "--top-p", "2"], "top_p is 2.0"),
    (["run", "{prompts}", "-o", "{answers}", "--top-k", "0"], "top_k is 0"),
    (["run", "{prompts}", "-o", "{answers}", "--top-k", "1" + "0" * 400], "must be at most"),
    (["run", "{prompts}", "-o", "{answers}", "--stop", ""], "stop is"),
    (["run", "{prompts}", "-o", "{answers}", "--batch-size", "0"], "batch_size is 0"),
    (["run", "{prompts}", "-o", "{answers}", "--schedule", "best"], "'best' is not one of"),
    (["run", "{prompts}", "-o", "{answers}", "--dtype", "int3"], "dtype is 'int3'"),
    (["run", "{prompts}", "-o", "{answers}", "--device", "cpu", "--device-map", "auto"], "exclude each other"),
    (["run", "{prompts}x", "-o", "{answers}"], "does not exist; give a file of prompts"),
    (["run", ".", "-o", "{answers}"], "is a directory"),
    (["run", "{prompts}", "-o", "/nowhere/answers"], "The folder /nowhere does not exist"),
    (["run", "{prompts}", "-o", "{prompts}"], "written over the prompts"),
    (["run", "{prompts}", "-o", "."], "names no file"),
    (["run", "{prompts}", "-o", ""], "names no file"),
    (["run", "{prompts}", "-o", "/"], "names no file"),
    (["run", "{prompts}", "-o", "{answers}", "--model", "~nobody-here/m"], "'~nobody-here/m' does not exist"),
    (["run", "{prompts}", "-o", "{answers}", "--chat-template", "/nowhere"], "chat template '/nowhere' can't be read"),
    (["run", "{prompts}", "-o", "{answers}", "--predictor", "magic"], "There is no predictor 'magic'"),
    (["predict", "{prompts}x"], "does not exist"),
    (["predict", "{prompts}", "--predictor", "magic"], "There is no predictor 'magic'"),
    (["predict", "{prompts}", "--predictor", "none", "-o", "{prompts}"], "written over the prompts"),
    (["predict", "{prompts}", "--predictor", "none", "-o", "{prompts}", "--overwrite"], "written over the prompts"),
    (["predict", "{prompts}", "--predictor", "none", "-o", ""], "names no file"),
    (["run", "{prompts}", "-o", "{answers}", "--seed", "-1"], "seed is -1"),
    (["predict", "{prompts}", "--predictor", "none", "-o", "/nowhere/lengths"], "can't be written"),
    (["predict", "{prompts}", "--max-tokens", "0"], "max_tokens is 0"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=lambda value: " ".join(value) if type(value) is list else "")
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], said: str, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, nothing on stdout, one line with the value and a way out, before any model is loaded."""
    filled = [one.format(prompts=prompts, answers=prompts.with_name("answers")) for one in arguments]
    assert main(filled) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("lengthwise: ")
    assert err.count("\n") == 1, err
    assert [path.name for path in prompts.parent.iterdir()] == ["prompts.jsonl"], "nothing is left behind"


def test_without_arguments_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The bare command says what it can do; it is no success."""
    assert main([]) == 2
    assert "predict" in "".join(capsys.readouterr())


def test_schedules_are_those_that_there_are() -> None:
    """The choices of --schedule are the names that schedulers have."""
    from typing import get_args

    assert get_args(options.Schedule) == named.NAMES


def test_as_a_process_it_ends_with_its_exit_code(tmp_path: Path) -> None:
    """`python -m lengthwise.cli` gives the exit code to the shell."""
    done = subprocess.run(
        [*SCRIPT, "run", "nowhere", "-o", "x"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lengthwise: nowhere does not exist; give a file of prompts.\n"
