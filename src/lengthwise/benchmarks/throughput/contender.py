"""A way to answer requests, and rounds in which all run in turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from lengthwise.benchmarks.throughput.memory import PeakMemory
from lengthwise.benchmarks.throughput.sample import Sample
from lengthwise.errors import LengthwiseError
from lengthwise.types import Request

Say = Callable[[str], None]
Samples = dict[str, list[Sample]]


class Contender(ABC):
    """`name` is its key among figures, `title` what people read. One run at a time."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a figure of it rests on, beside the common budget; settled after `warm_up`."""
        return {}

    def warm_up(self, requests: Sequence[Request]) -> None:
        """Some requests, uncounted: the first pass through a model is slower. Settings are tried here."""
        self.run(requests)

    @abstractmethod
    def run(self, requests: Sequence[Request]) -> Sample:
        """Answer all requests from their texts on. Raises LengthwiseError if it can't."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Free what it holds between runs."""


class Rounds:
    """Every contender once a round, each round beginning with another one, so that drift falls on all alike.

    A contender that fails is left out from then on, with all that it did: what is compared ran in the same rounds.
    """

    def __init__(self, contenders: Sequence[Contender], device: torch.device, say: Say) -> None:
        self.contenders = list(contenders)
        self._device = device
        self._say = say
        self._samples: Samples = {contender.name: [] for contender in contenders}

    def run(self, requests: Sequence[Request], num_rounds: int, num_warm_up: int) -> Samples:
        """Samples by contender, in their order; contenders are closed."""
        try:
            for contender in list(self.contenders):
                self._say(f"warming up: {contender.title}")
                self._try(contender, partial(_warm_up, requests=requests[:num_warm_up]))
            for number in range(num_rounds):
                shift = number % max(1, len(self.contenders))
                for contender in [*self.contenders[shift:], *self.contenders[:shift]]:
                    self._try(contender, partial(self._measure, requests=requests, number=number))
        finally:
            for contender in self.contenders:
                contender.close()
        return {contender.name: self._samples[contender.name] for contender in self.contenders}

    def _measure(self, contender: Contender, requests: Sequence[Request], number: int) -> None:
        with PeakMemory(self._device) as memory:
            sample = contender.run(requests)
        if sample.peak_bytes is None:
            sample = replace(sample, peak_bytes=memory.peak_bytes, grown_bytes=memory.grown_bytes)
        self._samples[contender.name].append(sample)
        self._say(f"round {number + 1}: {contender.title}: {sample.requests_per_s:.2f} requests/s")

    def _try(self, contender: Contender, work: Callable[[Contender], None]) -> None:
        try:
            work(contender)
        except LengthwiseError as error:
            self._say(f"{contender.title}: left out. {error}")
            self.contenders.remove(contender)
            contender.close()


def _warm_up(contender: Contender, requests: Sequence[Request]) -> None:
    contender.warm_up(requests)
