"""A model behind a server that predictors ask, beside the engine that answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lengthwise.engines.openai import open_openai
from lengthwise.engines.openai.options import ServerOptions
from lengthwise.errors import EngineError, PredictorError
from lengthwise.protocols import Backbone
from lengthwise.types import Finished, Request, SamplingParams
from tests.engines.openai.server import Reply, ScriptedServer, answer, refusal


def said(call):
    """The prompt, backwards."""
    return answer(call, text=call.prompt[::-1])


def requests_of(num):
    return [Request("same", f"prompt {i}") for i in range(num)]


def test_answers_stand_in_order(open_engine):
    """Of many at once, each asked greedily and briefly, whatever it asks for itself; ids don't matter."""
    with ScriptedServer(said) as server:
        backbone = open_engine(server.url).backbone()
        assert isinstance(backbone, Backbone)
        requests = [Request(r.id, r.prompt, SamplingParams(temperature=1.5, seed=3), 99) for r in requests_of(40)]
        assert backbone.ask(requests, 7) == [request.prompt[::-1] for request in requests]
        assert backbone.ask([], 7) == []
        bodies = [call.body for call in server.calls]
        assert {(body["temperature"], body["max_tokens"]) for body in bodies} == {(0.0, 7)}
        assert len(bodies) == 40
        assert server.most_running <= 8


def test_a_refused_request_has_no_answer(open_engine):
    """At its place; so has one that can't be sent."""

    def script(call):
        return refusal(400, "No.") if call.prompt == "prompt 1" else said(call)

    with ScriptedServer(script) as server:
        asked = [*requests_of(3), Request("half", "\ud800"), Request("chat", ({"role": "user"},), is_raw=True)]
        found = open_engine(server.url).backbone().ask(asked, 7)
    assert [text is None for text in found[:3]] == [False, True, False]
    assert found[4] is None


def test_what_is_answered_meanwhile_is_not_mixed_up(open_engine):
    """Requests of the same ids run in the engine while its backbone asks."""
    with ScriptedServer(said) as server:
        engine = open_engine(server.url)
        for i in range(5):
            engine.start(Request(str(i), f"long {i}"), (), 512, None)
        assert engine.backbone().ask(requests_of(5), 7) == [f"prompt {i}"[::-1] for i in range(5)]
        ended = {}
        while len(ended) < 5:
            ended.update({event.id: event for event in engine.poll(1.0)})
    assert {id: event.text for id, event in ended.items() if isinstance(event, Finished)} == {
        str(i): f"long {i}"[::-1] for i in range(5)
    }


def test_a_server_that_is_gone_breaks_the_question_and_not_the_next(open_engine):
    """The engine says so; when the server is back, it answers again."""
    with ScriptedServer(lambda call: Reply(500)) as server:
        backbone = open_engine(server.url, max_retries=0, policy={"patience_s": 0.1}).backbone()
        with pytest.raises(EngineError):
            backbone.ask(requests_of(20), 7)
        server.script = said
        assert backbone.ask(requests_of(2), 7) == ["0 tpmorp", "1 tpmorp"]


def test_it_can_not_be_looked_into(open_engine):
    """Which is said, with a way out."""
    with ScriptedServer() as server:
        backbone = open_engine(server.url).backbone()
        with pytest.raises(PredictorError, match=r"states.*served:toy is behind one.*--model"):
            backbone.states(requests_of(1), "mean")
        with pytest.raises(PredictorError, match=r"states"):
            backbone.last_state_after(requests_of(1), np.zeros(4, np.float32))
        with pytest.raises(PredictorError, match=r"adapter some/where.*--model"):
            backbone.with_adapter(Path("some/where"))


def test_it_is_made_once_keeps_the_key_and_closes_with_its_engine(monkeypatch):
    """With the key of the engine; after `close` no connection is left."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    with ScriptedServer(said) as server:
        engine = open_openai(ServerOptions((server.url,)))
        backbone = engine.backbone()
        assert engine.backbone() is backbone
        assert backbone.model == engine.model
        assert backbone.ask(requests_of(2), 7) == ["0 tpmorp", "1 tpmorp"]
        assert {call.headers["authorization"] for call in server.calls} == {"Bearer sk-secret-key"}
        inner = backbone._engine
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            inner.start(Request("a", "b"), (), 512, None)
