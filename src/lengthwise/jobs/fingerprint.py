"""What determines a job's answers: with anything else they would be those of another job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lengthwise.jobs.formats import InputFormat, OutputFormat
from lengthwise.jobs.options import JobOptions


def fingerprint(
    options: JobOptions, input_sha256: str | None, input_format: InputFormat, output_format: OutputFormat
) -> dict[str, Any]:
    """What determines a job's answers, by name, as JSON values; the model is not among it, which is not loaded yet.

    `input_sha256` None is standard input, whose lines are compared one by one. The sampling parameters are the job's
    defaults; those of single rows are part of the input. Left out, so free to change when a job is resumed: predictor,
    scheduler, window, batch size, device, and every other option of the engine.
    """
    parts: dict[str, Any] = {
        "input": input_sha256 or "standard input",
        "input_format": input_format,
        "output_format": output_format,
        "prompt_field": options.prompt_field,
        "max_tokens": options.max_tokens,
    }
    parts |= {name: value for name, value in asdict(options.sampling).items() if name != "seed"}
    return {**parts, "stop": list(options.sampling.stop), "seed": options.seed, "chat_template": options.chat_template}
