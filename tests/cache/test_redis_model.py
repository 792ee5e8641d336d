"""The model of Redis that other tests rely on gives the answers of the real one, command by command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.cache import scripts
from app.cache.entry import Entry, encode
from app.lab.simulation.redis_model import Answer, Argument, ScriptModel

NAMES = ("m:{1}", "m:{1}:lease", "m:{1}:floor")
CHANNEL, KEY = "m:wake", "1"
LONG_MS = 1_000_000
NOW = 1_700_000_000.0

versions = st.integers(0, 3)
dates = st.sampled_from([NOW, NOW + 0.000_001, NOW + 1.5])
tokens = st.sampled_from(["a", "b"])
entries = st.builds(
    lambda payload, version, created_at: encode(Entry(payload, version, created_at, 2.0, 0.01)),
    st.sampled_from([None, b"x", b"yz"]),
    versions,
    dates,
)
contents = entries | st.sampled_from([b"rubbish", b"", b"tc1 9", b"tc1 1.5 2 3 \n", b"7", b"-1", b"a"])

takes = st.tuples(
    st.just(scripts.TAKE),
    st.just(NAMES),
    st.tuples(
        tokens,
        st.just(LONG_MS),
        st.sampled_from([NOW, NOW + 1.0, NOW + 2.0, NOW + 4.0]),
        st.just(0.0) | dates,
        versions,
    ),
)
puts = st.tuples(
    st.just(scripts.PUT),
    st.just(NAMES),
    st.builds(
        lambda token, payload, version, created_at: (
            token,
            version,
            encode(Entry(payload, version, created_at, 2.0, 0.01)),
            LONG_MS,
            CHANNEL,
            KEY,
        ),
        st.just("") | tokens,
        st.sampled_from([None, b"x", b"yz"]),
        versions,
        dates,
    ),
)
releases = st.lists(tokens, min_size=1, max_size=3).map(
    lambda held: (
        scripts.RELEASE,
        NAMES[1:2] * len(held),
        (CHANNEL, *(word for token in held for word in (token, KEY))),
    )
)
revokes = st.tuples(st.just(scripts.REVOKE), st.just(NAMES[1:2]), st.tuples(st.just(CHANNEL), st.just(KEY)))
invalidations = st.tuples(
    st.just(scripts.INVALIDATE),
    st.just(NAMES),
    st.tuples(versions, st.just(LONG_MS), st.just(CHANNEL), st.just(KEY)),
)
discards = st.tuples(st.just(scripts.DISCARD), st.just(NAMES[:1]), st.tuples(contents))
meddling = st.tuples(st.just(""), st.sampled_from(NAMES).map(lambda name: (name,)), st.tuples(contents))
commands = st.lists(takes | puts | releases | revokes | invalidations | discards | meddling, max_size=25)


class RealScripts:
    """The scripts on a real server, and what they publish."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self._registered: dict[str, redis.commands.core.Script] = {}
        self._subscription: Any = self.client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._subscription.subscribe(CHANNEL)

    def run(self, text: str, names: tuple[str, ...], arguments: tuple[Argument, ...]) -> Answer:
        if text not in self._registered:
            self._registered[text] = self.client.register_script(text)
        answer: Answer = self._registered[text](keys=names, args=arguments)
        return answer

    def published(self) -> int:
        """How many messages came since the last question."""
        self.client.publish(CHANNEL, "end")
        heard = 0
        while True:
            message = self._subscription.get_message(timeout=5)
            if message is not None and message["data"] == b"end":
                return heard
            heard += message is not None

    def close(self) -> None:
        self._subscription.close()
        self.client.close()


@pytest.fixture
def real(redis_url: str) -> Iterator[RealScripts]:
    scripts_ = RealScripts(redis_url)
    yield scripts_
    scripts_.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=commands)
def test_the_model_answers_holds_and_publishes_what_the_real_server_does(
    real: RealScripts, sequence: list[tuple[str, tuple[str, ...], tuple[Argument, ...]]]
) -> None:
    messages: list[tuple[str, str]] = []
    model = ScriptModel(lambda: 0.0, lambda channel, key: messages.append((channel, key)))
    real.client.delete(*NAMES)
    for text, names, arguments in sequence:
        messages.clear()
        if text:
            answer = model.by_text[text](names, arguments)
            assert _plain(real.run(text, names, arguments)) == _plain(answer)
        else:
            data = arguments[0]
            assert isinstance(data, bytes)
            real.client.set(names[0], data, px=LONG_MS)
            model.strings[names[0]] = (data, LONG_MS / 1000)
        assert real.client.mget(NAMES) == [model.get(name) for name in NAMES]
        assert messages == [(CHANNEL, KEY)] * real.published()


def _plain(answer: Answer) -> object:
    """Text as bytes. For how long a lease is still held is left out: real time passes."""
    parts = answer[:2] if isinstance(answer, list) else [answer]
    return [part.encode() if isinstance(part, str) else part for part in parts]
