"""The built wheel, installed alone in an empty environment, is all that it takes to serve."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Final

import httpx
import pytest

from hub import __version__
from hub.presets import load
from tests.command import started, surroundings, talking
from tests.server import ROOT

# From the package registry, on a bad line.
INSTALL_SECONDS: Final = 600.0

pytestmark = pytest.mark.timeout(2 * INSTALL_SECONDS)


def run(*command: str | Path) -> None:
    done = subprocess.run(
        command,
        env=surroundings(PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1"),
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", wheel)
    return folder / "bin" / "hubbub"


def test_what_is_in_it(wheel: Path) -> None:
    assert wheel.name == f"hubbub-{__version__}-py3-none-any.whl"
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder, within in ((ROOT / "public", "hub/public"), (ROOT / "hub/presets", "hub/presets")):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert f"{within}/{path.relative_to(folder).as_posix()}" in inside
    tops = {name.split("/")[0] for name in inside}
    assert tops == {"hub", "llm", f"hubbub-{__version__}.dist-info"}


async def test_it_serves_its_page_and_talks(installed: Path, tmp_path: Path) -> None:
    async with started("--port", "0", folder=tmp_path, command=(installed,)) as hubbub:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{hubbub.port}", trust_env=False
        ) as http:
            for path, file in (("/", "index.html"), ("/script.js", "script.js")):
                response = await http.get(path)
                assert response.status_code == 200
                assert response.content == (ROOT / "public" / file).read_bytes()
            scenarios = {one["id"] for one in (await http.get("/api/scenarios")).json()}
            assert scenarios == set(load().scenarios)
        async with talking(hubbub.port) as alice:
            answer = await alice.call("llm_chat_prompt", prompt="hello")
            assert answer["demo"] is True
        assert "Traceback" not in hubbub.log
