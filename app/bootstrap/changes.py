"""Who is told of what the database announces: the cache, where it is to be coherent, and those who watch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from app.bootstrap.read_path import ReadPath
from app.cache.bookmark import Bookmark, bookmarked
from app.cache.coherence import Coherence
from app.cache.loader import Loader
from app.concurrency.clock import wall
from app.service import in_domain_terms
from app.settings import Settings
from app.storage.changes import Change, ChangeFeed, Position
from app.telemetry.metrics import Metrics
from app.watching.watches import Watches


async def change_feed(settings: Settings, path: ReadPath, metrics: Metrics, stack: AsyncExitStack) -> ChangeFeed:
    """Begun. Where the cache is not to be coherent, only watchers are told of changes."""
    kept = await bookmarked(path.remote) if path.coherence.is_expected else None
    feed = ChangeFeed(
        settings.database_url,
        connect_timeout_s=settings.database_connect_timeout_s,
        resume_from=None if kept is None else Position.parse(kept),
    )
    stack.push_async_callback(feed.aclose)
    if not path.coherence.is_expected:
        await feed.start()
        return feed
    feed.add(_Announcements(path.loader, path.coherence, metrics))
    bookmark = Bookmark(path.remote, lambda: str(feed.position) if feed.is_up and not path.recovery.pending else None)
    stack.push_async_callback(bookmark.aclose)
    await feed.start()
    bookmark.start()
    return feed


def watches_of(
    settings: Settings, loader: Loader, feed: ChangeFeed, metrics: Metrics, stack: AsyncExitStack
) -> Watches:
    """Fed by the same announcements, in every mode, and told of each after the cache is."""
    watches = Watches(
        lambda template_id: in_domain_terms(loader.current(str(template_id))),
        max_watches=settings.watch_max_streams,
        max_ids=settings.watch_max_ids,
        events=metrics,
    )
    metrics.watch_watches(watches.__len__, lambda: watches.ids)
    stack.push_async_callback(watches.aclose)
    feed.add(watches)
    return watches


class _Announcements:
    """What the database announces, told to the cache. Implements `app.storage.changes.ChangeListener`."""

    def __init__(self, loader: Loader, coherence: Coherence, metrics: Metrics) -> None:
        self._loader = loader
        self._coherence = coherence
        self._metrics = metrics

    def changed(self, changes: Sequence[Change]) -> None:
        self._loader.changed([(str(change.id), change.version) for change in changes])
        made_at = changes[0].made_at if changes else None  # one statement's, all of them
        if made_at is not None:
            self._metrics.announced(wall() - made_at)

    def feed_lost(self) -> None:
        self._coherence.lost()
        self._metrics.coherent(False)

    def feed_caught_up(self) -> None:
        self._coherence.regained()
        self._metrics.coherent(True)

    def everything_changed(self) -> None:
        self._loader.everything_changed()

    def flushed(self) -> None:
        self._loader.flush()
        self._metrics.flushed()
