"""A cloud's model on loopback: it says what it heard, tells its tokens, and waits where asked to.

with cloud() as (url, held):
    ...          # a prompt with "slow" in it is answered when `held` is set
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOLD_SECONDS = 30.0  # a test that never lets it go has failed by then


class _Chat(BaseHTTPRequestHandler):
    """Streaming chat completions: https://platform.openai.com/docs/api-reference/chat-streaming."""

    held: threading.Event

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        last = asked["messages"][-1]["content"].rpartition("\n")[2]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            self._say(asked["model"], f"{asked['model']} heard: ")
            if "slow" in last:
                self.held.wait(HOLD_SECONDS)
            self._say(asked["model"], last)
            self._send(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
            self._send(choices=[], usage={"prompt_tokens": 1200, "completion_tokens": 34})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass  # the reply was stopped

    def _say(self, model: str, text: str) -> None:
        self._send(model=model, choices=[{"index": 0, "delta": {"content": text}}])

    def _send(self, **event: object) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def cloud() -> Iterator[tuple[str, threading.Event]]:
    """Have it answer while the block runs; yields its base URL, and what lets slow replies go."""
    held = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Chat", (_Chat,), {"held": held}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", held
    finally:
        held.set()
        server.shutdown()
        thread.join()
        server.server_close()
