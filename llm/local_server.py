"""The child process that runs a model file: llama.cpp's server, from the wheel xllamacpp.

Run as `python -P -m llm.local_server FILE NAME SLOTS`. It is a process of its own because loading
a model holds Python's global lock, and because a crash of native code must not be ours.

It lives as long as its standard input is open, and the other end of that is held by its
parent alone. When the parent ends, even by `kill -9`, the kernel closes it, and the child
goes: by a thread that reads, and, since no thread runs while a model is being loaded, by
the kernel's SIGIO, whose default is to end the process. (Linux' PR_SET_PDEATHSIG would not
do: it follows the thread that started us, and trio starts processes in short-lived ones.)
"""

import fcntl
import os
import select
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

# So many conversations at once, each of so many tokens; more of them wait. Together they
# take some 2 GB beside a model of 8 billion parameters, which leaves it room on a laptop.
SLOTS = 4
MOST_SLOTS = 64  # more than a machine with one model serves well; 32 GB
CONTEXT = 4096
BAD_MODEL = 3  # exit status
KEY_VARIABLE = "HUBBUB_LOCAL_KEY"  # what whoever asks the model has to show


def main() -> None:
    """Load the model, write the address of its server to standard output, and stay."""
    report = _own_stdout()
    _go_with_parent()
    address = _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    os.write(report, f"{address}\n".encode())
    os.close(report)
    threading.Event().wait()  # the server's own threads do the work; the end comes by signal


def _own_stdout() -> int:
    """Keep standard output for the address; whatever llama.cpp prints goes to the log."""
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _go_with_parent() -> None:
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    with suppress(OSError):  # a system that has this for terminals only; the thread remains
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(0, fcntl.F_GETFL)
        fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([0], [], [], 0)[0]:  # the parent went before SIGIO was on
        os._exit(0)
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    os.read(0, 1)
    os._exit(0)


def _serve(path: str, name: str, slots: int) -> str:
    import xllamacpp  # noqa: PLC0415  slow to import; what must be ready first is above

    global server  # noqa: PLW0603  it must not be collected: its end is the server's
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = slots * CONTEXT
    params.ui = False
    params.api_keys = [os.environ[KEY_VARIABLE]]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        sys.exit(BAD_MODEL)
    return str(server.listening_address)


server: Any = None

if __name__ == "__main__":
    main()
