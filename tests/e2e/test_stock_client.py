"""The small chat clients that speak `dm-rpc`: one socket, one method, text put into the page.

They open the socket with the session's token in the address, send a prompt as a
notification, and show the second member of each frame where that is a text. Nothing else
that the hub says may get into their way.
"""

import pytest

from tests.e2e.conftest import People
from tests.server import Server

pytestmark = pytest.mark.browser

CLIENT = """
async (prompt) => {
  const { csrf } = await (await fetch("/api/session")).json();
  const url = new URL("/ws", location.href.replace("http", "ws"));
  url.searchParams.append("csrf", csrf);
  const socket = new WebSocket(url, ["dm-rpc"]);
  let shown = "";
  const ended = new Promise((resolve, reject) => {
    socket.addEventListener("close", reject);
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(data);
      if (Array.isArray(frame) && typeof frame[1] === "string") shown += frame[1];
      if (frame[0] === "llm_end") resolve(frame[1].status);
    });
  });
  await new Promise((resolve) => socket.addEventListener("open", resolve));
  socket.send(JSON.stringify(["llm_chat_prompt", { prompt }, null]));
  return { status: await ended, shown };
}
"""


def test_a_client_that_knows_only_prompt_and_token(people: People, server: Server) -> None:
    page = people.open(server.url)
    found = page.evaluate(CLIENT, "What is the capital of France?")
    assert found["status"] == "done"
    assert "What is the capital of France?" in found["shown"]
    assert "undefined" not in found["shown"]
