"""What is known of a model without loading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lengthwise.engines.transformers import at_hand, loading, open_engine, probe_store
from lengthwise.engines.transformers.at_hand import find_at_hand
from lengthwise.engines.transformers.options import ModelOptions, RunOptions
from lengthwise.errors import ModelError
from lengthwise.types import ErrorInfo, Prepared, Request


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights would be an error."""

    def refuse(*_: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(loading, "_load_weights", refuse)


@pytest.mark.usefixtures("no_weights")
def test_it_says_of_requests_what_the_engine_says(chat_llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt tokens by tokenizer and template, limits by the context, and the same refusals; identity, too."""
    options = ModelOptions(model=str(chat_llama_dir))
    requests = [
        Request("a", "The answer is short."),
        Request("b", "x", max_tokens=200),
        Request("c", "garden " * 400),
        Request("d", "x", max_tokens=10_000),
        Request("e", "x", api_fields={"n": 2}),
    ]
    here = find_at_hand(options)
    assert here is not None
    found = here.prepare(requests, 100)
    monkeypatch.undo()
    engine = open_engine(options, RunOptions(max_tokens=100, batch_size=2))
    assert found == engine.prepare(requests)
    assert here.identity == engine.model
    assert [type(one) for one in found] == [Prepared, Prepared, ErrorInfo, ErrorInfo, ErrorInfo]


def test_a_kept_measurement_is_found(tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None before the model was measured on this device; then that one, unless another data type is asked for; a
    damaged one is passed over."""
    monkeypatch.setenv("LENGTHWISE_CACHE_DIR", str(tmp_path))
    options = ModelOptions(model=str(tiny_llama_dir), device="cpu")
    here = find_at_hand(options)
    assert here is not None
    assert here.kept_probe() is None
    monkeypatch.setattr("lengthwise.engines.transformers.probe.is_plausible", lambda samples: True)
    monkeypatch.setattr("lengthwise.engines.transformers.probe.MIN_CPU_SHARE", 0.0)
    engine = open_engine(options, RunOptions())
    kept = here.kept_probe()
    assert kept is not None
    assert kept.step_cost == engine.step_cost
    other = find_at_hand(ModelOptions(model=str(tiny_llama_dir), device="cpu", dtype="bfloat16"))
    assert other is not None
    assert other.kept_probe() is None
    [file] = (tmp_path / "probes").iterdir()
    file.write_text("{")
    assert here.kept_probe() is None


def test_a_measurement_of_a_former_version_is_not_looked_at(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was kept before contexts and readings were measured is neither used nor warned of."""
    monkeypatch.setenv("LENGTHWISE_CACHE_DIR", str(tmp_path))
    here = find_at_hand(ModelOptions(model=str(tiny_llama_dir), device="cpu"))
    assert here is not None
    key = here.probe_key()
    former = {name: value for name, value in key.items() if name != "probe_format"}
    probe_store.write(former, {"samples": [[1, 0.01]], "context_tokens": 150, "is_exhausted": False})
    assert here.kept_probe() is None
    assert not caplog.records
    probe_store.write(key, {"samples": [[1, 0.01]], "context_tokens": 150, "is_exhausted": False})
    assert here.kept_probe() is None
    assert "can't be used" in caplog.text


def test_the_last_measurement_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several that fit the one that was made last."""
    import os

    monkeypatch.setenv("LENGTHWISE_CACHE_DIR", str(tmp_path))
    for age, dtype in ((100, "new"), (200, "old")):
        key = {"model": "m", "dtype": dtype}
        probe_store.write(key, {"n": dtype})
        stamp = probe_store.path_of(key).stat().st_mtime - age
        os.utime(probe_store.path_of(key), (stamp, stamp))
    assert probe_store.newest({"model": "m"}, lambda value: value["n"]) == "new"
    assert probe_store.newest({"model": "m", "dtype": "old"}, lambda value: value["n"]) == "old"
    assert probe_store.newest({"model": "other"}, lambda value: value["n"]) is None


def test_what_is_not_here_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of the hub that is not in its cache is no model at hand, and the network is not asked."""
    asked: list[dict[str, Any]] = []
    real = at_hand.snapshot_download

    def watched(*names: Any, **options: Any) -> Any:
        asked.append(options)
        return real(*names, **options)

    monkeypatch.setattr(at_hand, "snapshot_download", watched)
    assert find_at_hand(ModelOptions(model="nobody/has-such-a-model")) is None
    assert find_at_hand(ModelOptions(model="no name at all")) is None
    assert all(options["local_files_only"] for options in asked)


def test_a_broken_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        find_at_hand(ModelOptions(model=str(tmp_path)))
