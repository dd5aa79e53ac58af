"""One controller at work at a time, by a Lease; that two at once would do no harm is the store's merit, not its.

As client-go does: another holder's lease is over when it was not renewed for its own duration by this machine's clock,
whatever the clocks of the two say. A holder that cannot renew stops before that time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from k8s.client import ApiError, Client, Conflict, Object
from stages.contract.clock import now

DURATION_S = 15.0
RENEW_S = 4.0
MARGIN_S = 3.0  # a request that began in time may end late


class Lease:
    """Whether this process is the one that acts; call `step` every `RENEW_S` seconds."""

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = now,
    ) -> None:
        self._client = client
        self._name = name
        self._identity = identity
        self._clock = clock
        self._wall = wall
        self._until = float("-inf")
        self._other: tuple[str, float] | None = None  # what was seen of another's lease, and when it was new

    @property
    def held(self) -> bool:
        return self._clock() < self._until

    def step(self) -> bool:
        """Takes or renews the lease if it can be; a request that fails changes nothing."""
        began = self._clock()
        try:
            found = self._client.get("leases", self._name)
            if found is None:
                self._client.create("leases", self._object(None))
            elif self._free(found, began):
                self._client.replace("leases", self._name, self._object(found))
            else:
                self._until = float("-inf")
                return False
        except Conflict:  # another one was first
            self._until = float("-inf")
            return False
        except ApiError:
            return self.held
        self._until = began + DURATION_S - MARGIN_S
        return True

    def release(self) -> None:
        """Gives the lease back, so that a successor need not wait."""
        if not self.held:
            return
        self._until = float("-inf")
        try:
            found = self._client.get("leases", self._name)
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                self._client.replace("leases", self._name, {**found, "spec": {**found["spec"], "holderIdentity": ""}})
        except ApiError:
            return  # it runs out by itself

    def _free(self, found: Object, at: float) -> bool:
        spec = found.get("spec", {})
        holder = spec.get("holderIdentity", "")
        if holder in ("", self._identity):
            return True
        mark = f"{holder} {spec.get('renewTime', '')}"
        if self._other is None or self._other[0] != mark:
            self._other = (mark, at)
        return at - self._other[1] > float(spec.get("leaseDurationSeconds", DURATION_S))

    def _object(self, found: Object | None) -> Object:
        time_now = self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(found.get("spec", {})) if found else {}
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = time_now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions", 0)) + bool(found)
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION_S), "renewTime": time_now}
        if found:
            return {**found, "spec": spec}
        metadata = {"name": self._name, "namespace": self._client.namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
