"""What the hub does with what a client of the object dialect says: games, and only games."""

from functools import partial

import trio

from hub.awaited import Awaited
from hub.client import Client
from hub.commands import JoinRoom
from hub.conversation import MOST_ERRORS
from hub.errors import Close, HubError, TooMany
from hub.games import Games, failing_to, player, responses
from hub.hub import Hub
from hub.ids import secret_id
from hub.limits import Kind
from hub.showing import Snapshot
from hub.wire import objects

GREETING = "Connected to LLM Chat server"

# What is limited beside the number of messages.
_COSTS: dict[str, Kind] = {"start_game": "room", "send_message": "prompt"}

STARTED = "The game has started. Send a message, and the characters will answer."


class ObjectConversation:
    """One client's side of the object dialect; see docs/game-protocol.md."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._games = Games(hub)
        self._turns = 0

    def begin(self, client: Client) -> None:
        """Greet. There is nothing to follow until a game is joined."""
        self._hub.connect(client)
        client.send(objects.frame("connection", {"connectionId": secret_id(), "message": GREETING}))

    async def hear(self, client: Client, message: str | bytes) -> None:
        """Do what one message says and answer it; what is wrong with it is answered too."""
        too_fast = client.count(message)
        if too_fast is not None:
            self._refuse(client, too_fast)
            await client.slow_down(too_fast)
            return
        try:
            await self._perform(client, objects.decode(message))
        except objects.NotUnderstood as error:
            client.send(objects.error(str(error)))
            client.errors_in_a_row += 1
            if client.errors_in_a_row >= MOST_ERRORS:
                client.close(Close.PROTOCOL, "Too many messages that are not understood.")
        except HubError as error:
            self._refuse(client, error)
        else:
            client.errors_in_a_row = 0

    def _refuse(self, client: Client, error: HubError) -> None:
        client.send(objects.error(str(error), error.retry_after))

    async def _perform(self, client: Client, said: objects.Said) -> None:
        if (kind := _COSTS.get(said.type)) is not None:
            client.spend(kind)
        match said.type:
            case "start_game":
                await self._start(client, said)
            case "send_message":
                await self._send_message(client, said)
            case "get_game_state":
                state = await self._games.state(objects.game_id(said.game))
                client.send(objects.frame("game_state", state))
            case "join_game":
                await self._join(client, said)
            case "end_game":
                id = objects.game_id(said.game)
                await self._games.end(id)
                client.send(objects.frame("game_ended", {"gameId": id}))
            case _:
                raise objects.unknown(said.type)

    async def _start(self, client: Client, said: objects.Said) -> None:
        with failing_to("start game"):
            wanted = objects.read(said.data, objects.StartGame)
            # A passer-by is nobody to whom a game could belong: they never come back.
            owner = client.user if client.session is not None else None
            game = await self._games.start(wanted, owner)
        client.send(objects.frame("game_started", {"gameId": game.id, "message": STARTED}))

    async def _join(self, client: Client, said: objects.Said) -> None:
        id = objects.game_id(said.game)
        with failing_to("join game"):
            wanted = objects.read(said.data, objects.JoinGame)
        room = await self._games.find(id)

        def welcome(snapshot: Snapshot) -> None:
            client.send(
                objects.frame("game_joined", objects.game_state(room.record, snapshot.messages))
            )

        client.dialect = objects.STREAMED if wanted.stream else objects.WHOLE
        await self._hub.join(client, JoinRoom(id), welcome)

    async def _send_message(self, client: Client, said: objects.Said) -> None:
        """Take a message in; the next one may come while this one's turn runs."""
        id = objects.game_id(said.game)
        with failing_to("process message"):
            wanted = objects.read(said.data, objects.SendMessage)
            if self._turns >= self._hub.settings.prompts_waiting:
                raise TooMany("Wait for the answers to your earlier messages.")
        taken = trio.Event()
        client.start(partial(self._turn, client, id, wanted.message, taken))
        await taken.wait()  # so that prompts keep their order; the store has deadlines

    async def _turn(self, client: Client, id: str, text: str, taken: trio.Event) -> None:
        def tell(awaited: Awaited) -> None:
            try:
                with failing_to("process message"):
                    said = responses(awaited)
                data = {"gameId": id, "responses": said}
                client.send(objects.frame("character_responses", data))
            except HubError as error:
                client.send(objects.error(str(error)))

        self._turns += 1
        try:
            with failing_to("process message"):
                awaited = Awaited(tell, client)
                await self._games.play(id, text, player(client.user), awaited, taken.set)
        except HubError as error:
            client.send(objects.error(str(error)))
        finally:
            self._turns -= 1
            taken.set()
