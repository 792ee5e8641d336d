"""The servers and applications that the actions are done to, as the process that started them has them."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from app.embedded.errors import EmbeddedError
from app.embedded.redis import EmbeddedRedis
from app.embedded.replica import Replica
from app.live.actions import MAX_CALLERS, ActionError, Arguments, ModeChange, OneTemplate, Slowness, Stampede
from app.live.callers import call_at_once
from app.live.http import Place
from app.loadtest.errors import RequestError, TargetError
from app.settings import Mode

HERE_TIMEOUT_S: Final = 10.0
SEEDED_IDS: Final = 1_000
"""The templates that every database has from the start."""


class Done(NamedTuple):
    """What was done, in a sentence; in a few words, for a chart; and what is to be done once that was told."""

    sentence: str
    mark: str
    then: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class App:
    """One application, under the name that the page has for it."""

    name: str
    replica: Replica


class Stage:
    """Does the actions, one at a time. Its first application is the one whose page it is.

    `token` is what the applications know the controller by, and `links` are other pages of the stack. Calls may come
    from any thread.
    """

    def __init__(self, redis: EmbeddedRedis, apps: Sequence[App], token: str, mode: Mode, links: Mapping[str, str]):
        self._redis = redis
        self._apps = apps
        self._token = token
        self._mode = mode
        self._links = links
        self._turn = threading.Lock()
        self._redis_is_away = False
        self._slow_ms = 0

    def state(self) -> dict[str, Any]:
        """What can be done, and how things are."""
        return {
            "modes": [mode.value for mode in Mode],
            "max_callers": MAX_CALLERS,
            "state": {
                "redis": "away" if self._redis_is_away else "there",
                "postgres": "slow" if self._slow_ms else "normal",
                "mode": self._mode.value,
            },
            "links": [{"title": title, "url": url} for title, url in self._links.items()],
        }

    @contextmanager
    def turn(self, wait_s: float = 0.0) -> Iterator[None]:
        """Whoever does something has it to himself. Raises `ActionError` where somebody else does, for so long."""
        if not self._turn.acquire(timeout=wait_s):
            raise ActionError(409, "busy", "another action is under way: try again when it is done")
        try:
            yield
        finally:
            self._turn.release()

    def do(self, name: str, arguments: Arguments) -> Done:
        """To be called within a `turn`. Raises `ActionError`."""
        try:
            match name, arguments:
                case "stampede", Stampede():
                    return self._stampede(arguments)
                case "mode", ModeChange(mode=mode):
                    return self._change_mode(mode)
                case "redis_away", _:
                    return self._take_redis_away()
                case "redis_back", _:
                    return self._give_redis_back()
                case "change", OneTemplate(id=template_id):
                    done = self._tell(self._apps[0], name, arguments)
                    return Done(done, f"Template {template_id} changed")
                case "expire", OneTemplate(id=template_id):
                    return Done(self._tell_all(name, arguments), f"Template {template_id} expired")
                case "postgres_slow", Slowness(ms=ms):
                    done = self._tell_all(name, arguments)
                    self._slow_ms = ms
                    return Done(done, f"PostgreSQL slow: {ms} ms")
                case _:
                    done = self._tell_all(name, arguments)
                    self._slow_ms = 0
                    return Done(done, "PostgreSQL as before")
        except EmbeddedError as error:
            raise ActionError(502, "not_done", str(error)) from error

    def _stampede(self, wanted: Stampede) -> Done:
        template_id = wanted.id
        if template_id is None:
            template_id = random.randint(1, SEEDED_IDS)
            self._tell_all("expire", OneTemplate(id=template_id))
        found = []
        for app in self._apps:  # one after the other: on one machine each would slow the other
            try:
                sources = asyncio.run(call_at_once(Place.of(app.replica.http_url), template_id, wanted.callers))
            except (RequestError, TargetError) as error:
                raise ActionError(502, "not_done", f"{app.name}: {error}") from None
            found.append(f"{app.name} {_outcome(sources)}")
        sentence = f"{wanted.callers} callers asked for template {template_id} at once: {'; '.join(found)}"
        return Done(sentence, f"{wanted.callers} callers, template {template_id}")

    def _take_redis_away(self) -> Done:
        if self._redis_is_away:
            raise ActionError(409, "away_already", "Redis is away already")
        self._redis.kill()
        self._redis_is_away = True
        return Done("Redis was taken away: its process was killed", "Redis taken away")

    def _give_redis_back(self) -> Done:
        if not self._redis_is_away:
            raise ActionError(409, "there_already", "Redis is there")
        self._redis.start()
        self._redis_is_away = False
        return Done("Redis is back, empty", "Redis back")

    def _change_mode(self, mode: Mode) -> Done:
        if mode is self._mode:
            raise ActionError(409, "mode_already", f"the mode is {mode.value} already")
        app = self._apps[0]

        def restart() -> None:
            app.replica.restart({"APP_MODE": mode.value})
            self._mode = mode
            if self._slow_ms:
                self._tell(app, "postgres_slow", Slowness(ms=self._slow_ms))

        return Done(f"{app.name} is started anew in mode {mode.value}", f"Mode {mode.value}", restart)

    def _tell_all(self, name: str, arguments: Arguments) -> str:
        return "; ".join(f"{app.name}: {self._tell(app, name, arguments)}" for app in self._apps)

    def _tell(self, app: App, name: str, arguments: Arguments) -> str:
        """Have an application do it by itself."""
        place = Place.of(app.replica.http_url)
        connection = http.client.HTTPConnection(place.host, place.port, timeout=HERE_TIMEOUT_S)
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            connection.request("POST", f"/actions/{name}/here", arguments.model_dump_json(), headers)
            response = connection.getresponse()
            fields = json.loads(response.read(65_536))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ActionError(
                502, "not_done", f"{app.name} does not answer: {str(error) or type(error).__name__}"
            ) from None
        finally:
            connection.close()
        if response.status != 200:
            raise ActionError(response.status, str(fields.get("code")), f"{app.name}: {fields.get('detail')}")
        return str(fields["done"])


def _outcome(sources: Counter[str]) -> str:
    """How many loads, and what went wrong."""
    loads = sources["origin"]
    failed = {what: n for what, n in sources.items() if what not in ("l1", "l2", "origin", "shared", "stale")}
    told = "answered nobody"
    if len(failed) < len(sources):
        told = f"loaded it {'once' if loads == 1 else f'{loads} times'}"
    return told + "".join(f", {n} got {what}" for what, n in failed.items())
