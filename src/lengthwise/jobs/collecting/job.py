"""A job whose answers are lengths: several of each prompt, in one row."""

from __future__ import annotations

from lengthwise.jobs.answers import AnswerFormat
from lengthwise.jobs.collecting.flow import SamplesFlow
from lengthwise.jobs.collecting.lengths import LengthsFormat
from lengthwise.jobs.collecting.options import CollectOptions
from lengthwise.jobs.flow import Flow
from lengthwise.jobs.job import Job
from lengthwise.jobs.options import JobOptions
from lengthwise.jobs.sources import open_source


class CollectJob(Job):
    """As `Job`, which see; its rows are samples, and its options CollectOptions."""

    @classmethod
    def _flow_of(cls, options: JobOptions) -> Flow:
        source = open_source(options.prompts, options.input_format, options.prompt_field)
        return SamplesFlow(_collected(options), source)

    @classmethod
    def _format_of(cls, options: JobOptions, flow: Flow) -> AnswerFormat:
        return LengthsFormat(_collected(options))

    @property
    def _parts(self) -> dict[str, object]:
        options = _collected(self.options)
        collected = {
            "output_format": "lengths",
            "temperatures": list(options.temperatures),
            "samples": options.num_samples,
            "keep_text": options.keeps_text,
        }
        return {**super()._parts, **collected}

    def _begin(self, model: str) -> None:
        super()._begin(model)
        self._model = model  # not as it is served: lengths belong to an identity


def _collected(options: JobOptions) -> CollectOptions:
    assert isinstance(options, CollectOptions), "a job that collects is opened with CollectOptions"
    return options
