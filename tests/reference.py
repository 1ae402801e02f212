"""Where the numbers lie that iw3 gave: small cases in tests/golden, so that any clone can compare, larger ones beside the checkout."""
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2]/'shared/reference'
SMALL, LARGE = Path(__file__).parent/'golden', SHARED/'golden'


def golden(name: str) -> Path:
    "A file of numbers; a large one may be missing."
    return SMALL/name if (SMALL/name).exists() else LARGE/name


def needs(name: str, *, of: Path | None = None):
    "Skip a test without a file: one of numbers, or another of the reference."
    path = of/name if of else golden(name)
    return pytest.mark.skipif(not path.exists(), reason=f'{name} is not beside this checkout')


def case(name: str, file: str):
    "A case of a test that is skipped without its file."
    return pytest.param(name, marks=needs(file))
