"""What the command line does to runs on a cluster: objects in, objects out, no printing. Needs the Kubernetes API only.

Whoever may not read a ConfigMap or a pod's log is told so by the API server; nothing here asks for more than it needs.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from flow.recipe import RecipeBase
from k8s import names
from k8s.client import Absent, ApiError, Client, Conflict, HttpTransport, Object
from k8s.names import Phase
from k8s.settings import PREFIX
from stages.contract.errors import ExitCode, StageError, bad_settings

MOST_REQUESTS = 256
_TRIES = 5  # at an object that others change too


def connect(namespace: str | None) -> Client:
    """A client of the cluster that KUBECONFIG means; the context's own namespace where none is named.

    Raises:
        StageError: BAD_SETTINGS where there is no cluster to talk to, or no Kubernetes client installed.
    """
    try:
        from kubernetes import config
    except ModuleNotFoundError:
        hint = "pip install 'montessori[k8s]'"
        raise bad_settings("the Kubernetes client is not installed", where="-n", hint=hint) from None
    try:
        _, current = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        named = namespace or (current or {}).get("context", {}).get("namespace") or "default"
        return Client(HttpTransport(), str(named), patience_s=5.0)
    except config.ConfigException as error:
        hint = "set KUBECONFIG, or leave -n out for a run on this machine"
        raise bad_settings(f"no cluster: {error}", where="KUBECONFIG", hint=hint) from None


def find(client: Client, name: str | None) -> Object:
    """A run by its name, or the latest one of the namespace."""
    if name is not None:
        found = asked(lambda: client.get(names.PLURAL, name))
        if found is None:
            known = ", ".join(sorted(each["metadata"]["name"] for each in runs(client)))
            raise bad_settings(
                f"there is no run {name!r}",
                where=f"namespace {client.namespace}",
                hint=f"there are {known}" if known else f"montessori submit RECIPE -n {client.namespace}",
            )
        return found
    every = runs(client)
    if not every:
        raise bad_settings(
            "there is no run", where=f"namespace {client.namespace}", hint="montessori submit RECIPE -n …"
        )
    return max(every, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))


def runs(client: Client) -> list[Object]:
    return asked(lambda: list(client.list(names.PLURAL)))


def status_of(run: Object) -> dict[str, Any]:
    found = run.get("status") or {}
    assert isinstance(found, dict)
    return found


def recipe_values(recipe: RecipeBase) -> dict[str, Any]:
    """A recipe as `spec.recipe`: what its file and overrides say, without what the cluster says itself."""
    values = recipe.model_dump(mode="json", exclude_unset=True)
    for key in ("name", "store"):
        values.pop(key, None)
    return values


def submit(client: Client, recipe: RecipeBase) -> str:
    """Creates a run, or gives the one of this name its recipe; says what was done.

    One that had failed or was cancelled is carried on, with its failures forgotten.
    """
    values = recipe_values(recipe)
    body: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": recipe.name, "namespace": client.namespace},
        "spec": {"recipe": values},
    }
    try:
        client.create(names.PLURAL, body)
        return "submitted"
    except Conflict:
        pass
    except ApiError as error:
        raise _told(error) from None

    def change(run: Object) -> str:
        spec, phase = run["spec"], status_of(run).get("phase")
        same = json.loads(json.dumps(spec["recipe"])) == json.loads(json.dumps(values))
        over = phase in (Phase.FAILED, Phase.CANCELLED)
        if same and not over and not spec.get("cancel"):
            return "unchanged"
        spec["recipe"] = values
        if spec.get("cancel") or over:
            spec["cancel"] = False
            _add_request(run, {})
            return "carried on"
        return "changed"

    return _change(client, recipe.name, change)


def cancel(client: Client, name: str) -> str:
    """Asks a run to stop; says what will happen."""

    def change(run: Object) -> str:
        phase = status_of(run).get("phase")
        if phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED) and _settled(run):
            return f"{name} is not running: it is {phase}"
        run["spec"]["cancel"] = True
        return f"{name} stops within seconds; what is committed stays, and montessori submit carries on"

    return _change(client, name, change)


def rerun(client: Client, name: str, node: str, shards: tuple[int, ...], down: bool) -> str:
    """Asks for a node, or some of its shards, to be made again."""
    known = [each["name"] for each in status_of(find(client, name)).get("nodes", ())]
    if known and node not in known:
        raise bad_settings(f"the run has no node {node!r}", where=name, hint=f"it has {', '.join(known)}")
    request: dict[str, Any] = {"node": node}
    request |= {"shards": list(shards)} if shards else {}
    request |= {"down": True} if down else {}

    def change(run: Object) -> str:
        run["spec"]["cancel"] = False
        _add_request(run, request)
        return f"{node} of {name} is made again" + (" with all that is made from it" if down else "")

    return _change(client, name, change)


def controllers_settings(client: Client) -> dict[str, str]:
    """What the chart tells the namespace's controller, from its ConfigMap; nothing where that cannot be read."""
    try:
        for each in client.list("configmaps", labels="app.kubernetes.io/part-of=montessori"):
            found = each.get("data", {})
            if f"{PREFIX}STORE" in found:
                return dict(found)
    except ApiError:
        pass  # not everybody may read them
    return {}


def controllers_store(client: Client) -> str | None:
    """The URI of the store of the namespace's controller: from its ConfigMap, else from a run's status."""
    if found := controllers_settings(client).get(f"{PREFIX}STORE"):
        return found
    return next((str(uri) for each in runs(client) if (uri := status_of(each).get("store"))), None)


def pods(client: Client, run: str, node: str, attempt: int) -> list[Object]:
    """The pods of an attempt, by index; a later pod of an index comes last."""
    labels = f"{names.LABEL_RUN}={run},{names.LABEL_NODE}={node},{names.LABEL_ATTEMPT}={attempt}"
    found = asked(lambda: list(client.list("pods", labels=labels)))
    return sorted(found, key=lambda each: (index_of(each), each["metadata"].get("creationTimestamp", "")))


def attempts(client: Client, run: str, node: str) -> list[int]:
    """The attempts at a node whose Jobs are there."""
    labels = f"{names.LABEL_RUN}={run},{names.LABEL_NODE}={node}"
    found = asked(lambda: list(client.list("jobs", labels=labels)))
    return sorted({int(each["metadata"]["labels"][names.LABEL_ATTEMPT]) for each in found})


def index_of(pod: Object) -> int:
    return int(pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index", "0"))


def changes(client: Client, name: str) -> Iterator[Object]:
    """A run each time that it changes, beginning with how it is now; ends when it is deleted."""
    import time

    from k8s.client import NoAnswer

    last = ""
    while True:
        found = asked(lambda: client.get(names.PLURAL, name))
        if found is None:
            return
        if found["metadata"].get("resourceVersion") != last:
            last = str(found["metadata"].get("resourceVersion"))
            yield found
        try:
            for kind, each in client.watch(names.PLURAL):
                if each["metadata"]["name"] != name:
                    continue
                if kind == "DELETED":
                    return
                if each["metadata"].get("resourceVersion") != last:
                    last = str(each["metadata"].get("resourceVersion"))
                    yield each
        except (ApiError, NoAnswer):
            time.sleep(1.0)  # the server is away, or forgot where the watch was


def _settled(run: Object) -> bool:
    return bool(status_of(run).get("observedGeneration") == run["metadata"].get("generation"))


def _add_request(run: Object, request: dict[str, Any]) -> None:
    """Adds a request; those that were carried out make room."""
    done = set(status_of(run).get("rerun", ()))
    kept = [each for each in run["spec"].get("rerun", ()) if each["id"] not in done]
    if len(kept) >= MOST_REQUESTS:
        raise bad_settings(
            "too many requests are still to be carried out", where=run["metadata"]["name"], hint="wait for some"
        )
    run["spec"]["rerun"] = [*kept, {"id": uuid.uuid4().hex[:12], **request}]


def _change(client: Client, name: str, change: Any) -> str:
    """Changes a run as it is now; somebody else's change in between means reading it again."""
    for last in (*[False] * (_TRIES - 1), True):
        run = find(client, name)
        before = json.dumps(run["spec"], sort_keys=True)
        text = str(change(run))
        if json.dumps(run["spec"], sort_keys=True) == before:
            return text
        try:
            client.replace(names.PLURAL, name, run)
            return text
        except Conflict:
            if last:
                raise bad_settings("the run is being changed by somebody else", where=name, hint="try again") from None
        except ApiError as error:
            raise _told(error) from None
    raise AssertionError("the last try returns or raises")


def asked(ask: Any) -> Any:
    """What `ask` gives, the API server's refusals being for a person to read."""
    try:
        return ask()
    except ApiError as error:
        raise _told(error) from None


def _told(error: ApiError) -> StageError:
    """What the API server says, for a person."""
    if isinstance(error, Absent) and error.message.startswith("namespaces "):
        return bad_settings(error.message, where="the cluster", hint="kubectl get namespaces; -n names one")
    if isinstance(error, Absent):
        hint = "helm install the chart: docs/cluster.md"
        return bad_settings("this cluster knows no TailoringRuns", where="KUBECONFIG", hint=hint)
    if error.status in (401, 403):
        return bad_settings(f"the cluster does not let you: {error.message}", where="KUBECONFIG")
    if error.status in (0, 429) or error.status >= 500:
        return StageError(str(error), code=ExitCode.STORE, where="KUBECONFIG", hint="kubectl cluster-info")
    return bad_settings(error.message or error.reason, where="the API server")
