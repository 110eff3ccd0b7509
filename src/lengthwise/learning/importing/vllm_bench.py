"""Results of `vllm bench serve --save-result --save-detailed`.

They have lengths and no prompts, in the order in which the requests were sent. With the prompts file (the data set
`custom`) they are joined by that order, which is the file's only with `--disable-shuffle`: see `_check_order`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lengthwise.errors import InputError
from lengthwise.learning.importing.files import TextFile, parse_object, whole_tokens
from lengthwise.learning.importing.prompts import Prompt, Prompts
from lengthwise.learning.importing.rows import LeftOut, LengthRow, Rows

MIN_CORRELATION = 0.5  # between the sizes of prompts and their tokens: above 0.9 in the right order, about 0 else
MIN_PROMPTS = 8  # fewer say nothing of the order


def bench_rows(file: TextFile, prompts: Prompts, limit: int | None) -> Rows:
    """One row a request. Whether the limit ended an answer is not in the file: it is known with `limit` only."""
    results = [result for _, line in file.lines() if (result := parse_object(line))]
    for number, result in enumerate(results, start=1):
        name = f"result {number}, " if len(results) > 1 else ""
        yield from _result_rows(name, result, file, prompts, limit)


def _result_rows(name: str, result: Mapping[str, Any], file: TextFile, prompts: Prompts, limit: int | None) -> Rows:
    lengths = result.get("output_lens")
    if not isinstance(lengths, list):
        raise InputError(f"{file.path} has no output_lens; let `vllm bench serve` write them with --save-detailed.")
    known = [(f"{name}{number}", Prompt({})) for number in range(1, len(lengths) + 1)]
    if prompts.are_given:
        known = list(prompts.by_id.items())
        _check_order(file, result.get("input_lens"), [prompt for _, prompt in known], len(lengths))
    for index, value in enumerate(lengths):
        place, length = f"{name}request {index + 1}", whole_tokens(value)
        if length is None:
            yield LeftOut(place, f"the request failed: {_error(result, index)}")
            continue
        row_id, prompt = known[index]
        is_cut = None if limit is None else length >= limit
        yield LengthRow(place, row_id, {"length": length}, prompt.fields, is_cut, limit, result.get("model_id"))


def _error(result: Mapping[str, Any], index: int) -> str:
    errors = result.get("errors")
    told = str(errors[index]).strip() if isinstance(errors, list) and index < len(errors) else ""
    return told.splitlines()[-1] if told else "no message was kept"  # the last line of a traceback


def _check_order(file: TextFile, input_lens: Any, prompts: Sequence[Prompt], num: int) -> None:
    """Raises InputError unless prompts' sizes go with the tokens that the server counted."""
    if len(prompts) < num:
        raise InputError(f"{file.path} has {num} requests, its prompts file only {len(prompts)}; give the whole one.")
    if not isinstance(input_lens, list) or num < MIN_PROMPTS:
        return
    sizes = np.array([len(str(prompt.fields)) for prompt in prompts[:num]], float)
    counts = np.array(input_lens, float)
    has_order = sizes.std() > 0 and counts.std() > 0
    together = float(np.corrcoef(sizes, counts)[0, 1]) if has_order else 1.0
    if together < MIN_CORRELATION:
        raise InputError(
            f"{file.path} and its prompts file are not in one order (the sizes of their prompts have a correlation of "
            f"{together:.2f}), so lengths would go to wrong prompts; run `vllm bench serve` with --disable-shuffle."
        )
