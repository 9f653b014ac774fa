"""Fuzzing by coverage, with atheris: `python -m tests.fuzz TARGET --seconds N`.

What was found interesting is kept in a folder and is where the next run begins; inputs that
fail are written beside it by libFuzzer. The live targets have one hub in a thread of its own.
"""

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import trio

PURE = ("tuples", "objects", "cards", "png", "markup")
LIVE = ("http", "frames")

# Whose branches are counted. All of Python would take a minute before it begins.
OURS = ["hub", "markdown_it", "wsproto", "trio_websocket", "h11"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*PURE, *LIVE])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"))
    given = parser.parse_args()
    try:
        import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        sys.exit("This needs atheris, which is no part of what `make dev` installs: pip install it")
    with atheris.instrument_imports(include=OURS):
        from tests.fuzz import targets
    folder = given.corpus / given.target
    seed(folder)
    run = targets.PURE.get(given.target) or live(given.target)
    flags = [f"-max_total_time={given.seconds}", "-max_len=4096", "-timeout=20"]
    flags += [f"-artifact_prefix={folder}.failed-", str(folder)]
    atheris.Setup([sys.argv[0], *flags], run)
    atheris.Fuzz()


def seed(folder: Path) -> None:
    """Begin with what is hostile already."""
    from tests.e2e.hostile import TEXTS

    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(TEXTS):
        (folder / f"payload-{number}").write_bytes(text.encode(errors="replace"))


def live(name: str) -> Callable[[bytes], None]:
    """Have a hub run for as long as this process, and return who sends it an input."""
    from tests.fuzz.targets import LIVE, no_complaints, well
    from tests.hubs import running_hub

    ready = threading.Event()
    tokens: list[trio.lowlevel.TrioToken] = []
    hubs = []

    async def serve() -> None:
        async with running_hub() as running:
            tokens.append(trio.lowlevel.current_trio_token())
            hubs.append(running)
            ready.set()
            await trio.sleep_forever()  # the process ends it

    async def one(data: bytes) -> None:
        with no_complaints():
            await LIVE[name](hubs[0], data)
            await well(hubs[0])

    def run(data: bytes) -> None:
        trio.from_thread.run(one, data, trio_token=tokens[0])

    threading.Thread(target=trio.run, args=(serve,), daemon=True).start()
    ready.wait()
    return run


if __name__ == "__main__":
    main()
