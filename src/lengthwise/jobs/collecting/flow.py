"""A prompt → as many requests as samples are wanted of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lengthwise.jobs.collecting.options import CollectOptions, Sample
from lengthwise.jobs.flow import Flow
from lengthwise.jobs.lines import Line
from lengthwise.jobs.rows import Row
from lengthwise.jobs.sources import Source
from lengthwise.types import ErrorInfo, Request


@dataclass(slots=True)
class SampleLine(Line):
    """A line of prompts, once for each of its samples; `sample` counts from 0."""

    sample: int = 0


class SampledSource:
    """Prompts, each line as often as samples are wanted of it. What can't be read, too: so rows stay in step."""

    def __init__(self, prompts: Source, num_samples: int) -> None:
        self.name = prompts.name
        self.format = prompts.format
        self.is_repeatable = prompts.is_repeatable
        self._prompts = prompts
        self._num_samples = num_samples

    def lines(self) -> Iterator[Line]:
        for line in self._prompts.lines():
            for sample in range(self._num_samples):
                yield SampleLine(line.number, line.content, line.start, sample)

    @property
    def sha256(self) -> str:
        return self._prompts.sha256


class SamplesFlow(Flow):
    """One pass over prompts, each asked for all its samples, one after the other."""

    def __init__(self, options: CollectOptions, prompts: Source) -> None:
        self._samples = options.samples
        super().__init__(options, SampledSource(prompts, len(self._samples)))
        self._prompts = Flow(options, prompts)
        self._last: Row | None = None  # the prompt at hand, read and named once for all its samples

    def check(self) -> None:
        """As Flow's: it is prompts whose ids must differ, and samples that are counted."""
        self._prompts.check()
        self.sha256 = self._prompts.sha256
        if self._prompts.num_rows is not None:
            self.num_rows = self._prompts.num_rows * len(self._samples)

    def _named(self, line: Line) -> Row:
        assert isinstance(line, SampleLine), "the source gives no others"
        if self._last is None or self._last.line != line.number:
            self._last = self._prompts._named(line)
        return sample_of(self._last, self._samples[line.sample])


def sample_of(prompt: Row, sample: Sample) -> Row:
    """A prompt's row for one of its samples. It has that temperature, no seed of its own (so that each sample is given
    another, from the job's seed and its id) and asks for one answer."""
    content: Request | ErrorInfo = prompt.content
    if isinstance(content, Request):
        sampling = replace(content.sampling, temperature=sample.temperature, seed=None)
        asked = {name: value for name, value in content.api_fields.items() if name != "n"}
        content = replace(content, sampling=sampling, api_fields=asked)
    return replace(prompt, content=content).named(prompt.id + sample.suffix)
