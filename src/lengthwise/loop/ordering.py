"""What waits, estimated and in the scheduler's order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from lengthwise.estimates import LengthEstimates
from lengthwise.loop.flight import Flight, Tracked
from lengthwise.predictors.cold_start.lessons import Lessons
from lengthwise.predictors.safely import safe_predict, safe_revise, safe_revise_running
from lengthwise.protocols import Engine, LengthPredictor, Scheduler
from lengthwise.types import PredictedTokens, Prepared, PromptRead, Request, RunningRequest, WaitingRequest

INTAKE_CHUNK = 4096  # requests estimated together: enough for columns to pay, 1 MiB of curves


class Ordering:
    """Estimates requests and hands them to the scheduler: when they come, when they were cut, and anew when the
    predictor has learned. Then most are held back, and come into the order as their turn comes near."""

    def __init__(self, predictor: LengthPredictor, scheduler: Scheduler, flight: Flight, lessons: Lessons) -> None:
        self._predictor = predictor
        self._scheduler = scheduler
        self._flight = flight
        self._lessons = lessons
        self.held_back: dict[str, None] = {}  # what comes into the order later, by id

    def enter(self, admitted: Sequence[tuple[Request, Prepared]], now_s: float) -> None:
        """These come new."""
        requests = [request for request, _ in admitted]
        with self._flight.counts.predicting():
            estimates = safe_predict(self._predictor, requests)
            capped = estimates.capped([prepared.max_tokens for _, prepared in admitted])
            predicted, mean = _predicted(estimates, capped)
        waiting = [
            self._flight.enter(Tracked(request, prepared, estimates, row, predicted[row], mean[row], now_s))
            for row, (request, prepared) in enumerate(admitted)
        ]
        if self.held_back:  # what came before goes first
            self.held_back |= dict.fromkeys(request.id for request in requests)
            return
        order = self._lessons.starting_order(len(requests))
        if order is not None:
            waiting, capped = [waiting[row] for row in order], capped[list(order)]
        self._scheduler.add(waiting, capped)

    def put_back(self, cut: Sequence[Tracked], engine: Engine) -> None:
        """These wait again: by what is written of them, where predictor and engine can tell; else by their tokens
        alone."""
        requests, tokens = [one.request for one in cut], [one.tokens for one in cut]
        with self._flight.counts.predicting():
            revised = safe_revise_running(self._predictor, engine, requests, tokens)
        if revised is None:
            now = LengthEstimates.concatenate([one.estimate_now() for one in cut])
        else:
            given = revised.given([len(one.tokens) for one in cut])
            now = given.capped([one.prepared.max_tokens for one in cut])
        self._scheduler.add([self._flight.waiting[request.id] for request in requests], now)

    def drop(self, ids: Sequence[str]) -> None:
        """These shall not be started."""
        self._scheduler.remove(ids)
        for name in ids:
            self.held_back.pop(name, None)

    def revise(self, read: Sequence[PromptRead]) -> None:
        """The engine has read these prompts: what waits again later, and what is left to be written, go by what its
        model made of them. What was `predicted` stays what the request was ordered by."""
        known = [event for event in read if event.id in self._flight.tracked]  # others are left from a former run
        rows = [self._flight.tracked[event.id] for event in known]
        with self._flight.counts.predicting():
            revised = safe_revise(self._predictor, [row.request for row in rows], [event.state for event in known])
            if revised is None:
                return
            limits = [row.prepared.max_tokens for row in rows]
            for number, (row, mean) in enumerate(zip(rows, revised.capped(limits).mean().tolist(), strict=True)):
                row.estimates, row.row = revised, number
                self._flight.expect(row, mean)

    def start_anew(self) -> None:
        """The predictor has learned: what waits takes its place in the order again, the next of it now, the rest when
        its turn comes near. All at once would hold up the engine by seconds where much waits, and be old before it is
        used."""
        flight = self._flight
        self._scheduler.remove(list(flight.waiting))
        begun_first = sorted(flight.waiting, key=lambda name: not flight.waiting[name].num_cuts)
        self.held_back = dict.fromkeys(begun_first)
        ordered = self.go_on()
        with flight.counts.predicting():
            self._estimated(list(flight.running.values()))
            if self.held_back:  # the average of the others, for what is said of the time left
                expected = sum(flight.tracked[one.id].expected_tokens for one in ordered) / len(ordered)
                for name in self.held_back:
                    flight.expect(flight.tracked[name], expected)

    def go_on(self) -> Sequence[WaitingRequest]:
        """Keep as many in the scheduler's order as are sorted together. Gives what came into it."""
        if not self.held_back or len(self._flight.waiting) - len(self.held_back) >= INTAKE_CHUNK:
            return ()
        with self._flight.counts.predicting():
            chunk = [self._flight.waiting[name] for name in islice(self.held_back, INTAKE_CHUNK)]
            for request in chunk:
                del self.held_back[request.id]
            self._scheduler.add(chunk, self._estimated(chunk))
        return chunk

    def _estimated(self, rows: Sequence[WaitingRequest] | Sequence[RunningRequest]) -> LengthEstimates:
        """New estimates of requests that are in the run, noted and returned: within limits, given their tokens."""
        tracked = [self._flight.tracked[row.id] for row in rows]
        estimates = safe_predict(self._predictor, [one.request for one in tracked])
        limits = [one.prepared.max_tokens for one in tracked]
        now = estimates.given([row.num_tokens for row in rows]).capped(limits)
        predicted, mean = _predicted(estimates, now)
        for number, one in enumerate(tracked):
            one.estimates, one.row = estimates, number
            self._flight.expect(one, mean[number])
            if one.request.id in self._flight.waiting and not one.num_cuts:  # it was not begun
                one.predicted = predicted[number]
        return now


def _predicted(estimates: LengthEstimates, now: LengthEstimates) -> tuple[list[PredictedTokens | None], list[float]]:
    """What is said of each request, None where nothing is known, and its mean: of the estimates as they are `now`."""
    p50, p90, mean = (column.tolist() for column in (now.quantile(0.5), now.quantile(0.9), now.mean()))
    is_known = np.isfinite(estimates.median).tolist()
    said = [PredictedTokens(*both) if known else None for known, *both in zip(is_known, p50, p90, strict=True)]
    return said, mean
