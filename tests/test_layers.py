"""The layers are a contract, not an intention: a line in the wrong room is caught."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("domain", "application", "projections", "interface")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml", "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for layer in LAYERS:
        shutil.copytree(ROOT / layer, tmp_path / layer, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_layers_are_kept(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("domain/money.py", "import psycopg"),
        ("domain/payment.py", "import application.payments"),
        ("projections/orders.py", "import application.event_store"),
        ("application/payments.py", "import interface.settings"),
        ("application/payments.py", "import stripe"),
    ],
)
def test_a_line_in_the_wrong_room_is_caught(copy: Path, file: str, line: str) -> None:
    with (copy / file).open("a") as out:
        out.write(f"\n{line}\n")
    result = lint(copy)
    assert result.returncode != 0
    assert "BROKEN" in result.stdout
