"""How a dial that failed is reported."""

from __future__ import annotations

from wireline._sansio.deadline import Deadline
from wireline._sansio.race import Race
from wireline.errors import DialError, SocketTimeout

__all__ = ["failure"]


def failure(race: Race, target: str, deadline: Deadline | None) -> DialError | SocketTimeout:
    """The exception for a race that nobody won: it was lost, or its time was up before."""
    if race.over or deadline is None:
        return DialError(target, race.attempts)
    timeout = SocketTimeout("dial", deadline.seconds)
    timeout.add_note(f"while dialing {target}")
    race.give_up(timeout, deadline.at)
    for sockaddr, error, seconds in race.attempts:
        timeout.add_note(f"{sockaddr!r}: {'no answer' if error is timeout else error} after {seconds:.3f} s")
    return timeout
