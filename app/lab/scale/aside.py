"""Simulations in a process of their own, meanwhile: two processors do more than one."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from app.lab.errors import LabError
from app.lab.scale.outcome import Outcome
from app.lab.scale.plan import Plan
from app.lab.scale.world import simulate


@dataclass(frozen=True, slots=True)
class Job:
    """One call of `simulate`."""

    plan: Plan
    seed: int
    reads_seed: int | None = None


class Aside:
    """Simulations that run meanwhile, one after the other."""

    def __init__(self, receiver: Connection) -> None:
        self._receiver = receiver

    def outcome(self) -> Outcome:
        """Of the next one, once it has ended. Raises `LabError` where its process has."""
        try:
            outcome: Outcome = self._receiver.recv()
        except EOFError:
            raise LabError("the process that simulated meanwhile has ended before it was done") from None
        return outcome


@contextmanager
def aside(jobs: Sequence[Job]) -> Iterator[Aside]:
    """Begun; it ends with the context at the latest. To be entered in the main thread, as signals are its business."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, jobs), name="simulation", daemon=True)
    # Ctrl-C is for the parent, which ends this process; what is ignored stays so in what is started meanwhile.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)
    sender.close()
    try:
        yield Aside(receiver)
    finally:
        process.terminate()  # before the pipe is closed: it may be about to send
        process.join()
        receiver.close()


def _run(sender: Connection, jobs: Sequence[Job]) -> None:
    for job in jobs:
        sender.send(simulate(job.plan, job.seed, reads_seed=job.reads_seed))
