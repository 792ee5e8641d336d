"""The actions' other end: a server on loopback, in the process that started PostgreSQL, Redis and the applications."""

from __future__ import annotations

import json
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from pydantic import ValidationError

from app.embedded.errors import EmbeddedError
from app.live.actions import ACTIONS, ActionError
from app.live.stage import Stage

IDLE_TIMEOUT_S: Final = 5.0
"""How long a request may take to come, and its sender to take the answer."""
LAST_TURN_S: Final = 10.0
"""At the end, how long an action that is under way is waited for."""
MAX_BODY_BYTES: Final = 4_096


class Controller:
    """Listens from construction on a free port, and answers while `serving`. `say` is told what goes wrong when nobody
    waits for an answer any more. Only who knows `token` is answered."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.token = secrets.token_urlsafe(32)
        self._say = say
        self._server = _Server(say)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self, stage: Stage) -> Iterator[None]:
        """Do what is asked for, on this stage, until the end of the context; then an action that is under way is
        waited for, a while."""
        _Handler.bind(self._server, stage, self.token, self._say)
        thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="controller", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()
            with suppress(ActionError), stage.turn(LAST_TURN_S):
                pass

    def close(self) -> None:
        """Listen no longer."""
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """What goes wrong with one request is said in one line, and the next is taken."""

    daemon_threads = True

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._say = say

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the library's signature
        error = sys.exception()
        if not isinstance(error, OSError):  # it has gone
            self._say(f"{type(error).__name__}: {error}")


class _Handler(BaseHTTPRequestHandler):
    """One request, one connection."""

    timeout = IDLE_TIMEOUT_S
    server_version = "controller"
    sys_version = ""

    stage: Stage
    token: str
    say: Callable[[str], None]

    @classmethod
    def bind(cls, server: ThreadingHTTPServer, stage: Stage, token: str, say: Callable[[str], None]) -> None:
        """Have the server's requests done on this stage."""
        members = {"stage": stage, "token": token, "say": staticmethod(say)}
        server.RequestHandlerClass = type("Handler", (cls,), members)

    def do_GET(self) -> None:
        if self._is_known():
            if self.path == "/state":
                self._answer(HTTPStatus.OK, self.stage.state())
            else:
                self._refuse(ActionError(404, "not_found", "there is /state"))

    def do_POST(self) -> None:
        if not self._is_known():
            return
        try:
            with self.stage.turn():
                self._act()
        except ActionError as error:
            self._refuse(error)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's signature
        """The application tells of actions."""

    def _act(self) -> None:
        name = self.path.removeprefix("/actions/")
        length = self.headers.get("Content-Length", "")
        if name not in ACTIONS or not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            raise ActionError(404, "not_found", "there is no such action")
        try:
            arguments = ACTIONS[name].model_validate_json(self.rfile.read(int(length)))
        except ValidationError:
            raise ActionError(422, "invalid_input", "these are no arguments of this action") from None
        done = self.stage.do(name, arguments)
        self._answer(HTTPStatus.OK, {"done": done.sentence, "mark": done.mark})
        self._wait_until_read()
        try:
            done.then()
        except (EmbeddedError, ActionError) as error:
            self.say(str(error))

    def _wait_until_read(self) -> None:
        """Until the other end has closed the connection: it has told what was done then."""
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv(4_096):
                pass

    def _is_known(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if secrets.compare_digest(given.encode(), self.token.encode()):
            return True
        self._refuse(ActionError(403, "no_token", "only who started this may ask for it"))
        return False

    def _refuse(self, error: ActionError) -> None:
        self._answer(error.status, {"code": error.code, "detail": str(error)})

    def _answer(self, status: int, fields: dict[str, Any]) -> None:
        body = json.dumps(fields).encode()
        with suppress(OSError):  # it has gone
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
