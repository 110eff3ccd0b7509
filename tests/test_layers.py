"""Imports point one way only, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lengthwise

PACKAGE = Path(lengthwise.__file__).parent

# From left to right: a module may import from its own part and from parts of lower rank. Parts of one rank are
# siblings and do not import each other.
RANKS = {
    "errors": 0,
    "costs": 1,
    "types": 1,
    "estimates": 1,
    "bundled": 1,
    "protocols": 2,
    "feeds": 2,
    "journal": 3,
    "predictors": 4,
    "scheduling": 4,
    "engines": 4,
    "loop": 5,
    "intake": 6,
    "pipeline": 7,
    "learning": 8,
    "simulation": 8,
    "jobs": 9,
    "gateway": 9,
    "cluster": 9,
    "benchmarks": 9,
    "report": 9,
    "testing": 9,
    "cli": 10,
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """First-level parts of the package that a module imports, also inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("lengthwise.")}
    return found & set(RANKS)


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_module_has_a_place():
    """A new part of the package must be given its rank here."""
    assert {part_of(path) for path in modules()} <= set(RANKS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_left_only(path: Path):
    """A module imports its own part and parts of lower rank, never a sibling or a part to its right."""
    here = part_of(path)
    wrong = {part for part in imported_parts(path) if part != here and RANKS[part] >= RANKS[here]}
    assert not wrong, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(wrong))}"


def test_importing_the_package_loads_nothing_heavy():
    """`import lengthwise` loads no torch, transformers, scikit-learn, Ray or web framework."""
    code = (
        "import sys, lengthwise, lengthwise.cli;"
        "print(*sorted({'torch', 'transformers', 'sklearn', 'ray', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_exported_names_are_frozen():
    """The public surface changes on purpose only."""
    assert lengthwise.__all__ == sorted(lengthwise.__all__)
    assert set(lengthwise.__all__) == {
        "Completion",
        "EngineError",
        "InputError",
        "JobError",
        "LengthEstimates",
        "LengthwiseError",
        "ModelError",
        "Pipeline",
        "PredictorError",
        "Request",
        "RequestError",
        "SamplingParams",
        "UsageError",
    }
    assert all(hasattr(lengthwise, name) for name in lengthwise.__all__)
