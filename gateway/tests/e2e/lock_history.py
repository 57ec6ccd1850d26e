"""What renters did with one session's lock, as they saw it, and whether one lock that is held by one at a time explains it.

A claim that succeeded holds the lock at the latest when its answer is there, and until its release is asked for at the
earliest. For a lock, a history can be put into one order (it is linearizable, as Herlihy and Wing have it) if and only if
these times, which are the certain ones, do not overlap, and nobody is served outside of his own possible time. What had no
answer is tried again by the renter until it has one, so that every operation here has an end.
"""

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """`kind` is claim, use, or release; all of them succeeded."""

    kind: str
    token: str
    begun: float
    ended: float


class History:
    def __init__(self):
        self.operations = []
        self.lock = threading.Lock()

    def record(self, kind, token, operation):
        """Runs `operation` and records it if it says that it was done."""
        begun = time.monotonic()
        done = operation()
        if done:
            with self.lock:
                self.operations.append(Operation(kind, token, begun, time.monotonic()))
        return done

    def violations(self):
        of = {}
        for one in self.operations:
            of.setdefault(one.token, {}).setdefault(one.kind, []).append(one)
        held = []
        for token, kinds in of.items():
            if "claim" in kinds:
                since = min(claim.ended for claim in kinds["claim"])
                until = min((one.begun for one in kinds.get("release", [])), default=float("inf"))
                held.append((since, until, token))
        held.sort()
        found = [
            f"{first} and {second} both hold the lock from {since:.3f} to {min(until, end):.3f}"
            for (_, until, first), (since, end, second) in zip(held, held[1:])
            if since < until
        ]
        # Who is served while somebody else certainly holds it, from the beginning to the end.
        for use in (one for one in self.operations if one.kind in ("claim", "use")):
            for since, until, holder in held:
                if holder != use.token and since < use.begun and use.ended < until:
                    found.append(f"{use.token} was served at {use.begun:.3f} while {holder} held the lock")
        return found
