"""`hubbub models`: what it lists, and what it says of one that does not answer."""

import os
import subprocess
import sys
from pathlib import Path


def models(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_BASE_URL"))}
    return subprocess.run(
        [sys.executable, "-m", "hub", "models"],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(Path(__file__).parent.parent)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_model_that_answers(tmp_path: Path) -> None:
    told = models(tmp_path, HUBBUB_DEMO_RATE="1000")
    assert told.returncode == 0
    assert "demo: ok, first text after" in told.stdout


def test_one_that_does_not(tmp_path: Path) -> None:
    told = models(tmp_path, OPENAI_API_KEY="sk-secret", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert told.returncode == 1
    assert "FAILED" in told.stdout
    assert "Traceback" not in told.stderr
    assert "sk-secret" not in told.stdout + told.stderr


def test_a_list_of_them(tmp_path: Path) -> None:
    (tmp_path / "hubbub.toml").write_text(
        "".join(f'[[model]]\nname = "{name}"\nprovider = "demo"\n' for name in ("quick", "slow"))
    )
    told = models(tmp_path, HUBBUB_DEMO_RATE="1000")
    assert told.returncode == 0, told.stderr
    assert told.stdout.index("quick") < told.stdout.index("slow")


def test_a_list_with_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "hubbub.toml").write_text('[[model]]\nname = "x"\n')
    told = models(tmp_path)
    assert told.returncode == 2
    assert told.stderr.startswith("hubbub: ")
    assert "Traceback" not in told.stderr
