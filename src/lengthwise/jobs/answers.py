"""A completion → an answer line; the answers file, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.errors import JobError, UsageError
from lengthwise.jobs.rows import Row
from lengthwise.journal import sync_folder
from lengthwise.types import Completion, ErrorInfo, PredictedTokens


@dataclass(frozen=True, slots=True)
class AnswersFile:
    """What was written: a file beside the answers, not yet in their place."""

    path: Path
    sha256: str
    num_failed: int


def answer_of(row: Row, completion: Completion) -> dict[str, Any]:
    """An answer line's fields: `error` only where there is one, `metadata` only where the row has some."""
    answer: dict[str, Any] = {
        "id": row.id,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "usage": {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "recomputed_tokens": completion.recomputed_tokens,
        },
        "predicted_tokens": _predicted(completion.predicted),
    }
    if completion.error is not None:
        answer["error"] = _error(completion.error, row.line)
    if row.metadata:
        answer["metadata"] = row.metadata
    return answer


def answer_line(row: Row, completion: Completion) -> bytes:
    """One line of UTF-8. JSON has no NaN or infinity and UTF-8 no half surrogate pairs: in metadata that has them
    they become null and an escape."""
    answer = answer_of(row, completion)
    try:
        line = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    except ValueError:
        line = json.dumps(_finite(answer), ensure_ascii=False)
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(_finite(answer)).encode() + b"\n"


def write_answers(answers: Path, pairs: Iterable[tuple[Row, Completion]]) -> AnswersFile:
    """Write all answer lines, in order, to a file beside `answers`, down to the disk."""
    new = answers.with_name(f"{answers.name}.journal.answers")
    digest, num_failed = hashlib.sha256(), 0
    try:
        with new.open("wb") as file:
            for row, completion in pairs:
                line = answer_line(row, completion)
                digest.update(line)
                file.write(line)
                num_failed += completion.finish_reason == "error"
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        new.unlink(missing_ok=True)
        raise _unwritable(new, error) from error
    return AnswersFile(new, digest.hexdigest(), num_failed)


def publish(written: AnswersFile, answers: Path) -> None:
    """Put the written answers into their place in one step. Raises JobError if another file stands there by now, or if
    they can't be put there."""
    try:
        if answers.exists() and sha256_of(answers) != written.sha256:
            refuse_foreign(answers)
        os.replace(written.path, answers)
        sync_folder(answers.parent)
    except OSError as error:
        raise _unwritable(answers, error) from error
    finally:
        written.path.unlink(missing_ok=True)


def remove(answers: Path) -> None:
    """Throw away answers that are to be made anew."""
    try:
        answers.unlink(missing_ok=True)
    except OSError as error:
        raise JobError(f"{answers} can't be removed ({error.strerror}); use another -o.") from error


def _unwritable(path: Path, error: OSError) -> JobError:
    return JobError(
        f"{path} can't be written ({error.strerror}). All answers are safe in the journal; make room and run the same "
        "command again."
    )


def refuse_foreign(answers: Path) -> None:
    raise JobError(
        f"{answers} exists and was not made by this job, so it is not written over. Use another -o, move it away, "
        "or throw it away with --overwrite."
    )


def check_output(prompts: Path, answers: Path, journal: Path) -> None:
    """Raises UsageError unless answers can be written there, before any work is done for them."""
    try:
        _check_output(prompts, answers, journal)
    except OSError as error:
        raise UsageError(f"{answers} can't be written ({error.strerror}); use another -o.") from error


def _check_output(prompts: Path, answers: Path, journal: Path) -> None:
    folder = answers.parent
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist, so {answers.name} can't be written there; create it.")
    if answers.exists() and not answers.is_file():
        raise UsageError(f"{answers} is no regular file, so answers can't be written there; use another -o.")
    if any(path.exists() and path.samefile(prompts) for path in (answers, journal)):
        raise UsageError(f"The answers would be written over the prompts in {prompts}; use another -o.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"The folder {folder} can't be written, so {answers.name} can't be; use another -o.")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _predicted(predicted: PredictedTokens | None) -> dict[str, int | None] | None:
    return None if predicted is None else {"p50": _whole(predicted.p50), "p90": _whole(predicted.p90)}


def _whole(num_tokens: float) -> int | None:
    return round(num_tokens) if math.isfinite(num_tokens) else None


def _error(error: ErrorInfo, line: int) -> dict[str, Any]:
    return {"type": error.type, "message": error.message, "line": line}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value
