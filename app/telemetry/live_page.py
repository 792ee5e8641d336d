"""The metrics of the live page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from app.telemetry.plain import PlainCounter, PlainGauge

ACTIONS = (
    "stampede", "expire", "change", "redis_away", "redis_back", "postgres_slow", "postgres_normal", "mode",
)  # fmt: skip
"""The names of the actions, which are all that can be asked for."""
ACTION_ENDS = ("done", "refused", "failed")


class LivePageMetrics:
    """What is known of those who look at the live page, and of what they had done."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._subscribers = PlainGauge(
            "live_subscribers", "Streams of events for the live page that are open.", registry=registry
        )
        self._dropped = PlainCounter(
            "live_events_dropped", "Events that a subscriber was too slow to be told.", registry=registry
        )
        self._refused = PlainCounter(
            "live_subscribers_refused", "Streams refused because there were too many.", registry=registry
        )
        self._actions = PlainCounter(
            "live_actions",
            "Actions of the live page, by how they ended: done, refused for what they asked, or failed.",
            ["action", "end"],
            registry=registry,
        )
        self.subscribers = self._subscribers.count
        self.dropped, self.refused = self._dropped.child(), self._refused.child()
        for action in ACTIONS:
            for end in ACTION_ENDS:
                self._actions.child(action, end)

    def action_ended(self, action: str, end: str) -> None:
        """`action` is one of `ACTIONS` and `end` one of `ACTION_ENDS`."""
        self._actions.child(action, end).value += 1
