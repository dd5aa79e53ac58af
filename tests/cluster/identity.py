"""What EKS's webhook adds to pods whose ServiceAccount names a role, as a post-renderer of helm's.

The token is a real one of the cluster. Who shall give keys for it is the MinIO of a test, which knows no role: what is
seen is what a user sees whose role does not trust the ServiceAccount.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

ANNOTATION = "eks.amazonaws.com/role-arn"
FOLDER = "/var/run/secrets/eks.amazonaws.com/serviceaccount"


def arguments(giver: str) -> list[str]:
    """For helm, which renders through this file."""
    given = [part for argument in (__file__, giver) for part in ("--post-renderer-args", argument)]
    return ["--post-renderer", sys.executable, *given]


def add(pod: dict[str, Any], role: str, giver: str) -> None:
    told = {"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": f"{FOLDER}/token", "AWS_ENDPOINT_URL_STS": giver}
    token = {"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}}
    pod.setdefault("volumes", []).append({"name": "aws-iam-token", "projected": {"sources": [token]}})
    for container in pod["containers"]:
        container.setdefault("env", []).extend({"name": key, "value": value} for key, value in told.items())
        container["volumeMounts"].append({"name": "aws-iam-token", "mountPath": FOLDER, "readOnly": True})


def main(giver: str) -> None:
    objects = [each for each in yaml.safe_load_all(sys.stdin) if each]
    roles = {
        each["metadata"]["name"]: each["metadata"].get("annotations", {}).get(ANNOTATION)
        for each in objects
        if each["kind"] == "ServiceAccount"
    }
    for each in objects:
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            if role := roles.get(pod.get("serviceAccountName", "")):
                add(pod, role, giver)
    yaml.safe_dump_all(objects, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
