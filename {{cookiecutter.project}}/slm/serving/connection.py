"""HTTP connections that end: limits beside those of uvicorn, and refusals in the form of all others."""

import asyncio
import json
import sys
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from slm.serving.access import LONGEST_HEAD
from slm.serving.refusal import RequestError
from slm.serving.turns import Turns

READ_S = 10  # for the head of a request, and for its body; clients close idle connections after 5 seconds
MOST_CONNECTIONS = 128
LINGER_S = 1
GRACE_S = 0.3  # what a stopped server leaves to the requests that run


class Connection(H11Protocol):
    """One client: its requests come whole within a time, or it is cut off."""

    _deadline: asyncio.TimerHandle | None = None
    _ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > MOST_CONNECTIONS:
            self._end(RequestError("too many connections", status=503, kind="server_error"))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        super().data_received(data)
        if self._is_answering():
            self._stop_clock()
            if not self.cycle.more_body and len(self.conn.trailing_data[0]) > LONGEST_HEAD:
                self.transport.abort()  # requests that nobody has read yet fill the memory

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering():  # else the next request was here already
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """What h11 refuses; uvicorn calls it where it has caught that."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._end(RequestError(f"{msg} {error or ''}".strip(), status=status))

    def shutdown(self) -> None:
        if self._ended or (self._is_answering() and self.cycle.more_body):
            self.transport.abort()  # the request is not whole yet, or refused
        else:
            super().shutdown()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._stop_clock()
        self._deadline = self.loop.call_later(READ_S, self._too_slow)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _too_slow(self) -> None:
        if self.conn.trailing_data[0]:
            self._end(RequestError(f"the request was not whole within {READ_S} seconds", status=408))
        else:
            self.transport.close()

    def _end(self, error: RequestError) -> None:
        """Say why, if nothing was said yet, and close: after a moment in which the client may still send,
        since a connection that is closed at once takes the answer with it.
        """
        self._stop_clock()
        if self._is_answering():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
        elif not self.transport.is_closing():
            body = json.dumps(error.body).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (
                h11.Response(status_code=error.status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.write_eof()
            self._ended = True
            self._deadline = self.loop.call_later(LINGER_S, self.transport.close)


class Service(uvicorn.Server):
    """Ends within a second and with exit code 0 on SIGTERM and Ctrl-C: what runs may end, or is cancelled."""

    def __init__(self, app: ASGIApp, turns: Turns, host: str, port: int) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="error",  # what is refused is no fault of the server
            http=Connection,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            timeout_keep_alive=READ_S,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._turns = turns

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.force_exit, self.should_exit = self.should_exit, True

    async def shutdown(self, sockets: Any = None) -> None:
        asyncio.get_running_loop().call_later(GRACE_S, self._turns.close)
        await super().shutdown(sockets)
