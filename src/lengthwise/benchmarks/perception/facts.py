"""What figures rest on, beside the data: versions, machine, date."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lengthwise.benchmarks.tables import num_cores

PACKAGES = ("lengthwise", "numpy", "scipy", "scikit-learn", "lightgbm", "onnxruntime", "torch", "transformers", "peft")


def facts() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "machine": {"processor": processor(), "cores": num_cores(), "system": platform.system()},
        "python": platform.python_version(),
    }


def processor() -> str:
    """Its name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
