"""The cluster that tests use: the one of KUBECONFIG, and in it namespaces of their own."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.required import missing

CONTEXT_VARIABLE = "MONTESSORI_KUBE_CONTEXT"  # which context of KUBECONFIG; the current one if unset
ADVICE = "make kind-up makes one here and says what to export; KUBECONFIG names any other"
# `make kind-up` removes what a killed session has left, by the second label.
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "app.kubernetes.io/part-of": "montessori-tests"}


def open_cluster() -> client.ApiClient:
    """A client of the cluster. Without one the test is skipped, or fails where MONTESSORI_REQUIRE names `cluster`."""
    if not os.environ.get("KUBECONFIG"):
        unavailable("KUBECONFIG is not set")
    try:
        api = config.new_client_from_config(context=os.environ.get(CONTEXT_VARIABLE) or None)
        client.VersionApi(api).get_code(_request_timeout=10)
    except Exception as error:  # a file that is not there, a context that is not in it, a server that does not answer
        unavailable(f"the cluster of KUBECONFIG does not answer: {error}")
    return api


def unavailable(why: str) -> NoReturn:
    missing("cluster", f"{why} ({ADVICE})")


@contextmanager
def fresh_namespace(api: client.ApiClient, prefix: str) -> Iterator[str]:
    """A namespace that enforces the restricted Pod Security standard, and is gone with the test."""
    core = client.CoreV1Api(api)
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name, "labels": RESTRICTED}})
    try:
        yield name
    finally:
        core.delete_namespace(name)


def create(api: client.ApiClient, path: str, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
    """POSTs a manifest as it stands, unknown and doubled fields refused; ApiException has the server's words."""
    query = [("fieldValidation", "Strict")] + ([("dryRun", "All")] if dry_run else [])
    request = api.param_serialize(
        "POST",
        path,
        query_params=query,
        header_params={"Accept": "application/json", "Content-Type": "application/json"},
        body=body,
        auth_settings=["BearerToken"],
    )
    response = api.call_api(*request, _request_timeout=60)
    data = response.read()
    if response.status >= 300:
        raise ApiException(status=response.status, reason=response.reason, body=data.decode())
    answer = json.loads(data)
    assert isinstance(answer, dict)
    return answer
