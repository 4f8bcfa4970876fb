"""Which episode is played next: numbered, handed to actors, and learned from in the order of the numbers.

The learner owns every episode of a run from its start. An actor asks for one and is told its number, seed,
task and noise, and the version of the parameters to act with. An update learns from the lowest numbers that
are left, however long they took: neither success nor length selects what is learned from. The standard
library and NumPy only; the actor imports this file too.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

from pirl_jax.rollout.evaluation import Evaluation, Outcome, is_evaluation
from pirl_jax.rollout.seeds import episode_seed, noise_key

ATTEMPTS = 3
"""Times a number is handed out before an episode that cannot be used is given up."""


@dataclass(frozen=True)
class Assignment:
    """One episode to play."""

    number: int
    """Of the episode, from 0 over the whole run, restarts included; evaluations have numbers of their own."""
    seed: int
    """Of the environment: the same for all episodes of a group."""
    noise_key: int
    """Of the policy's draws: no two episodes share one."""
    task: int
    """Index of the environment's task; 0 where there is one."""
    place: int | None
    """Episodes (groups) of its task before it, from which its initial state follows; None: that follows from
    the seed."""
    version: int
    """Of the parameters to act with."""

    @property
    def evaluates(self) -> bool:
        """Whether it is played without noise."""
        return is_evaluation(self.number)


@dataclass(frozen=True)
class Standing:
    """How the episodes of a run stand."""

    version: int | None
    """Newest of the parameters; None before the first."""
    arrived: int
    """Episodes that are there for the next update."""
    open: int
    """Episodes handed out that no version has learned from."""
    playing: int
    """Episodes handed out that have not arrived, those of an evaluation included."""
    evaluation: int
    """Episodes of the newest evaluation; 0 where there has been none."""
    evaluated: int
    """Those of them that are over."""


class Verdict(Enum):
    """What becomes of an episode that arrives."""

    WANTED = "wanted"
    DUPLICATE = "duplicate"
    """Its number has arrived before: it was handed out again while its first actor seemed gone."""
    UNASSIGNED = "unassigned"
    """Its number was never handed out in this process, or not with its seed."""
    OLD_VERSION = "old_version"
    """Of an evaluation, and a chunk was chosen by older parameters than those that are evaluated."""


class Assignments:
    """The numbers of a run's episodes: which are handed out, to whom, and which wait to be learned from.

    At most ``window`` episodes are open at a time, an update's worth times one more than the updates that the
    policy may lie behind. Episode n is learned from once all numbers below it are settled; so an episode that
    may start is never too old by its turn, and none is thrown away for being late. With a window of one
    update's worth, actors wait while the learner updates; that is synchronous learning, and the rest is the
    same rule.

    An evaluation's episodes go out as soon as it is published, before others that have never been handed out.
    They are played, lost, played again and given up as all are, and no number of training changes for them.

    Threads of the server ask and deliver, one thread learns. A number is *open* from the moment it is handed
    out until the version that learned from it is published.

    Args:
        window: Episodes that may be open.
        seed: Of the run.
        group_size: Consecutive numbers of one seed, task and initial state.
        choose: Seed → (task, place); asked once a group, in the order of the groups, from the run's first,
            when a group is admitted: by the thread that learns, so that what it has learned by then decides,
            and not who asks when. None: a single task.
        first: The first number of this process: those below it are settled.
    """

    def __init__(
        self,
        window: int,
        seed: int,
        group_size: int = 1,
        choose: Callable[[int], tuple[int, int | None]] | None = None,
        first: int = 0,
    ) -> None:
        self._window, self._seed, self._group_size = window, seed, group_size
        self._choose = choose or (lambda seed: (0, None))
        self._chosen: dict[int, tuple[int, int | None]] = {}
        self._admitted = first // group_size
        """Groups that have been chosen."""
        self._base = self._next = first
        self._dropped = 0
        self._version: int | None = None
        self._returned: list[int] = []
        self._playing: dict[int, str] = {}
        self._arrived: set[int] = set()
        self._failures: Counter[int] = Counter()
        self._given_up: set[int] = set()
        self._evaluation = Evaluation(0, 0, seed, ())
        self._to_evaluate: list[int] = []
        self._changed = threading.Condition()
        for group in range(self._admitted if choose else 0):  # in turn, as before the restart
            self._choose(episode_seed(seed, group))

    def publish(self, version: int, settled: int, evaluation: Evaluation | None = None) -> None:
        """Admit what a new version makes room for.

        Args:
            version: Of the parameters that were just pushed.
            settled: The lowest number that has not been learned from or dropped.
            evaluation: Of these parameters, to begin now; the one before must be over.
        """
        with self._changed:
            if evaluation is not None:
                assert self._evaluation.over
                self._evaluation, self._to_evaluate = evaluation, [*reversed(evaluation.numbers)]
                for numbers in (self._arrived, self._given_up):
                    numbers.difference_update([*filter(is_evaluation, numbers)])
            self._version, self._base, self._dropped = version, settled, 0
            for numbers in (self._arrived, self._given_up):
                numbers.difference_update([number for number in numbers if number < settled])
            group = settled // self._group_size
            self._chosen = {key: chosen for key, chosen in self._chosen.items() if key >= group}
            self._admit()
            self._changed.notify_all()

    def drop(self, count: int) -> None:
        """Make room for as many episodes more, which stand in for ones that were dropped in their turn."""
        with self._changed:
            self._dropped += count
            self._admit()
            self._changed.notify_all()

    def next(self, actor: str, timeout: float) -> Assignment | None:
        """Return the actor's next episode, waiting until one may start; None if none may in time."""
        with self._changed:
            if not self._changed.wait_for(self._may_start, timeout):
                return None
            if self._returned:
                number = heapq.heappop(self._returned)
            elif self._to_evaluate:
                number = self._to_evaluate.pop()
            else:
                number, self._next = self._next, self._next + 1
            self._playing[number] = actor
            return self._assignment(number)

    def deliver(self, number: int, seed: int, outcome: Outcome | None = None) -> Verdict:
        """Note that an episode has arrived; the first of a number is the one that counts.

        Args:
            number: Of the episode.
            seed: Of the episode.
            outcome: How it ended, for one of an evaluation.
        """
        with self._changed:
            if not self._was_handed_out(number) or seed != self._seed_of(number):
                return Verdict.UNASSIGNED
            if number < self._base or number in self._arrived or number in self._given_up:
                return Verdict.DUPLICATE
            if self._playing.pop(number, None) is None:
                # It was handed out again, to no one yet.
                self._returned.remove(number)
                heapq.heapify(self._returned)
            if is_evaluation(number):
                assert outcome is not None
                if outcome.oldest < self._evaluation.version:
                    self._fail(number)
                    return Verdict.OLD_VERSION
                self._evaluation.outcomes[number] = outcome
            self._arrived.add(number)
            return Verdict.WANTED

    def reject(self, number: int) -> None:
        """Hand a number out again whose episode arrived but cannot be used; give it up after some tries."""
        with self._changed:
            self._arrived.discard(number)
            self._fail(number)

    def lose(self, actor: str) -> None:
        """Note that a message of the actor's could not be read: it was of the oldest episode it plays."""
        with self._changed:
            numbers = [number for number, player in self._playing.items() if player == actor]
            if numbers:
                number = numbers[0]  # the oldest; a lower one may have been handed out since
                del self._playing[number]
                self._fail(number)

    def keep(self, actor: str, numbers: Collection[int]) -> int:
        """Hand out again what an actor was given and says that it does not hold; return how many that is.

        So it goes with an assignment that was lost on the way, and with an episode that the actor gave up to
        send. ``()`` is for an actor that is gone.
        """
        with self._changed:
            mine = [number for number, player in self._playing.items() if player == actor]
            lost = [number for number in mine if number not in numbers]
            for number in lost:
                del self._playing[number]
                heapq.heappush(self._returned, number)
            self._changed.notify_all()
            return len(lost)

    def is_given_up(self, number: int) -> bool:
        """Tell whether no usable episode of this number is to be expected."""
        return number in self._given_up

    def standing(self, awaited: int) -> Standing:
        """Return how the episodes stand, of which an update learns from ``awaited``."""
        with self._changed:
            turn = range(self._base, self._base + awaited + self._dropped)
            there = sum(number in self._arrived or number in self._given_up for number in turn)
            arrived = max(0, there - self._dropped)
            return Standing(
                version=self._version,
                arrived=arrived,
                open=self._next - self._base,
                playing=len(self._playing),
                evaluation=len(self._evaluation.numbers),
                evaluated=len(self._evaluation.outcomes),
            )

    @property
    def playing(self) -> int:
        """Episodes handed out that have not arrived."""
        return len(self._playing)

    @property
    def _end(self) -> int:
        """The lowest number that is not admitted."""
        return self._base + self._window + self._dropped

    def _admit(self) -> None:
        groups = -(-self._end // self._group_size)
        for group in range(self._admitted, groups):
            self._chosen[group] = self._choose(episode_seed(self._seed, group))
        self._admitted = max(self._admitted, groups)

    def _may_start(self) -> bool:
        if self._version is None:
            return False
        return bool(self._returned or self._to_evaluate) or self._next < self._end

    def _assignment(self, number: int) -> Assignment:
        assert self._version is not None
        if is_evaluation(number):
            return Assignment(number, *self._evaluation.draws(number), self._evaluation.version)
        seed, key = self._seed_of(number), noise_key(self._seed, number)
        return Assignment(number, seed, key, *self._chosen[number // self._group_size], self._version)

    def _was_handed_out(self, number: int) -> bool:
        if not is_evaluation(number):
            return number < self._next
        return number in self._evaluation.numbers and number not in self._to_evaluate

    def _seed_of(self, number: int) -> int:
        if is_evaluation(number):
            return self._evaluation.draws(number)[0]
        return episode_seed(self._seed, number // self._group_size)

    def _fail(self, number: int) -> None:
        self._failures[number] += 1
        if self._failures[number] < ATTEMPTS:
            heapq.heappush(self._returned, number)
        else:
            self._given_up.add(number)
            if is_evaluation(number):
                self._evaluation.outcomes[number] = None
        self._changed.notify_all()
