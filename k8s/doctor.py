"""Is this cluster fit for a run? What a user can see of it: the API, the definition, rights, controller, store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from flow.doctor import Check, store_checks
from k8s import access
from k8s.client import ApiError, Client
from k8s.settings import PREFIX
from stages.contract.clock import now
from stages.contract.errors import StageError
from stages.contract.store import open_store


def checks(namespace: str, store: str | None) -> list[Check]:
    """Every check, in an order in which the first error is the one to mend first."""
    try:
        client = access.connect(namespace)
    except StageError as error:
        return [Check("cluster", "error", str(error))]
    found = [*_runs(client)]
    if found[0].level == "error":
        return found
    return [*found, *_controller(client), *_store(client, store)]


def _runs(client: Client) -> Iterator[Check]:
    try:
        every = access.runs(client)
    except StageError as error:
        yield Check("cluster", "error", str(error))
        return
    yield Check("cluster", "ok", f"it answers; {len(every)} runs in {client.namespace}")
    unseen = [each["metadata"]["name"] for each in every if not access.status_of(each)]
    if unseen:
        yield Check("runs", "warning", f"no controller has looked at {', '.join(unseen[:3])} yet")


def _controller(client: Client) -> Iterator[Check]:
    named = access.controllers_settings(client).get(f"{PREFIX}LEASE", "montessori-controller")
    try:
        leases = [each for each in client.list("leases") if each["metadata"]["name"] == named]
    except ApiError as error:
        yield Check("controller", "warning", f"its Lease cannot be read: {error.message}")
        return
    held = [each["spec"] for each in leases if each["spec"].get("holderIdentity")]
    if not held:
        yield Check("controller", "error", f"none works in {client.namespace}; helm install the chart there")
        return
    age = (now() - datetime.fromisoformat(str(held[0]["renewTime"]))).total_seconds()
    good = age < 2 * float(held[0].get("leaseDurationSeconds", 15))
    text = f"{held[0]['holderIdentity']} works; seen {age:.0f} s ago"
    hint = "" if good else f"; kubectl logs -n {client.namespace} deploy/…-controller"
    yield Check("controller", "ok" if good else "error", text + hint)


def _store(client: Client, store: str | None) -> Iterator[Check]:
    uri = store or access.controllers_store(client)
    if uri is None:
        yield Check("store", "warning", "the controller's store is not known here; --store names it")
        return
    try:
        yield from store_checks(open_store(uri).hasty())
    except StageError as error:
        yield Check("store", "error", str(error))
