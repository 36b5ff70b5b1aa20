"""Actors that run one at a time, in an order that depends on a seed and a virtual clock alone.

Each actor has a thread, since the code under test blocks; but only the one whose turn it is runs,
and it hands its turn over explicitly, in `pause`. So nothing depends on the timing of threads.
"""

import heapq
import itertools
import os
import random
import threading
from collections.abc import Callable
from typing import ClassVar

NEVER = float("inf")


class Ended(BaseException):
    """The actor's process is gone. No code under test catches it; what its `finally` blocks try
    raises it again."""


class Actor:
    """One process of the modelled system. `ended` says why it is gone; empty while it lives.

    A `mortal` one may be killed by a fault; `ends_at` is when its time is up; `said` is what it
    printed last; `environment` is what it leaves to the next one, if anything.
    """

    def __init__(
        self, name: str, work: Callable[[], None], mortal: bool = False, ends_at: float = NEVER
    ):
        self.name = name
        self.work = work
        self.mortal = mortal
        self.ends_at = ends_at
        self.ended = ""
        self.said = ""
        self.environment: object = None
        self.thread: _Thread | None = None


class Schedule:
    """The clock, and whose turn it is."""

    def __init__(self, rng: random.Random, step_limit: int, trace: list[str] | None):
        self.now = 0.0
        self.running: Actor | None = None
        self.steps = 0
        self.failure = ""
        self._rng = rng
        self._step_limit = step_limit
        self._trace = trace
        self._queue: list[tuple[float, float, int, Actor | Callable[[], None]]] = []
        self._count = itertools.count()
        self._crash: BaseException | None = None
        self._finished = threading.Lock()
        self._finished.acquire()

    def at(self, when: float, what: Actor | Callable[[], None]) -> None:
        """Let an actor begin, or call what must not pause, at a time. Of equal times a draw
        decides."""
        heapq.heappush(self._queue, (when, self._rng.random(), next(self._count), what))

    def pause(self, seconds: float) -> None:
        """Let the others go on until `seconds` later. Raises Ended when the actor's time is up."""
        me = self.running
        self.check()
        self.steps += 1
        if self.steps > self._step_limit:
            self.fail(f"no end after {self._step_limit} steps")
            raise Ended
        in_time = self.now + seconds < me.ends_at
        self.at(self.now + seconds if in_time else me.ends_at, me)
        self._hand_over(me)
        if not in_time:
            self.end_running("timed out")
        self.check()

    def check(self) -> None:
        """Raise Ended when the running actor, or the whole campaign, is over."""
        if self.running.ended or self.failure:
            raise Ended

    def end_running(self, reason: str) -> None:
        self.running.ended = reason
        self.note(reason)
        raise Ended

    def fail(self, reason: str) -> None:
        """An invariant is broken: the first one counts, and the campaign is over."""
        self.failure = self.failure or reason
        self.note(f"FAILED: {reason}")

    def note(self, text: str, who: str = "") -> None:
        if self._trace is not None:
            who = who or (self.running.name if self.running else "")
            self._trace.append(f"{self.now:10.3f}  {who:<12} {text}")

    def run(self) -> None:
        """Until nothing is left to do."""
        self._hand_over(None)
        self._finished.acquire()
        if self._crash:
            raise self._crash

    def _hand_over(self, me: Actor | None) -> None:
        """Give the turn to whoever is next; returns when it is `me` again, at once without one."""
        while self._queue:
            when, _, _, what = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            if what is me:
                break
            if isinstance(what, Actor):
                if self.failure and what.thread is None:
                    continue  # never begun: nothing to unwind
                if what.thread is None:
                    what.thread = _Thread.idle()
                    what.thread.job = lambda actor=what: self._live(actor)
                what.thread.turn.release()
                if me is None:
                    return
                me.thread.turn.acquire()
                break
            self.running = None
            self._call(what)
        else:
            self._finished.release()
        self.running = me

    def _call(self, what: Callable[[], None]) -> None:
        if self.failure:
            return
        try:
            what()
        except BaseException as error:  # of the model: it must not surface in an actor's code
            self._crash = self._crash or error
            self.fail(f"{type(error).__name__}: {error}")

    def _live(self, actor: Actor) -> None:
        """All that an actor does, on its thread."""
        self.running = actor
        try:
            actor.work()
        except Ended:
            pass
        except BaseException as error:  # an error of the model, or unheard-of: not a finding
            self._crash = self._crash or error
            self.fail(f"{type(error).__name__}: {error}")
        actor.thread.give_back()
        self.running = None
        self._hand_over(None)


class _Thread(threading.Thread):
    """A thread that lends itself to one actor after another: to start one for each is slow."""

    _idle: ClassVar[list["_Thread"]] = []

    def __init__(self):
        super().__init__(daemon=True)
        self.turn = threading.Lock()
        self.turn.acquire()
        self.job: Callable[[], None]

    @classmethod
    def idle(cls) -> "_Thread":
        if cls._idle:
            return cls._idle.pop()
        thread = cls()
        thread.start()
        return thread

    def give_back(self) -> None:
        self._idle.append(self)

    @classmethod
    def forget(cls) -> None:
        """In a forked process, where the threads are not."""
        cls._idle.clear()

    def run(self) -> None:
        while True:
            self.turn.acquire()
            self.job()


os.register_at_fork(after_in_child=_Thread.forget)
