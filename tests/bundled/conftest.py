"""The bundled model's folder, and the repository's root on the path: the generator under test lives in `tools`."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def bundled_dir() -> Path:
    return ROOT / "src" / "lengthwise" / "bundled"


@pytest.fixture(scope="session")
def model_dir(bundled_dir: Path) -> Path:
    return bundled_dir / "model"
