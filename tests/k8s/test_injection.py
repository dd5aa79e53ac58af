"""Whatever a recipe's author writes, it reaches a manifest in the fields that are meant for it, or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flow.graph import build
from flow.pods import PodSettings
from k8s.render import Manifest, is_gang, render_job, render_service
from k8s.run import parse_run
from stages.contract.errors import StageError
from stages.contract.task import Task
from tests.k8s.builders import RUN, SETTINGS, job, task
from tests.k8s.test_run import STORE, trun

# What has broken out of YAML, shells, templates, paths and label selectors elsewhere.
NASTY = [
    "",
    "a\nimage: evil",
    "a'; touch /tmp/x #",
    '"}, "image": "evil',
    "$(AWS_SECRET_ACCESS_KEY)",
    "$$(AWS_SECRET_ACCESS_KEY)",
    "${AWS_SECRET_ACCESS_KEY}",
    "`id`",
    "--help",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../b",
    "!!python/object/apply:os.system [id]",
    "{{ self.__init__.__globals__ }}",
    "null",
    "yes",
    "1e3",
    "&a *a",
    "a: b",
    "- a",
    "\u2028",
    "é",
    "a\x00b",
    "ａ",
    "a" * 300,
    "kubernetes.io/hostname",
    "nvidia.com/gpu",
    "1Gi",
    "default",
]
text = st.one_of(st.sampled_from(NASTY), st.text(max_size=80), st.from_regex(r"[a-z0-9./-]{1,70}", fullmatch=True))
scalar = st.one_of(text, st.integers(), st.floats(), st.booleans(), st.none())

_PLAIN = re.compile(r"[A-Za-z0-9._/:=@-]*")  # of every text in a manifest; no quote, dollar, brace or control character


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (key, *texts(each))
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def guarded(manifest: Manifest) -> dict[str, Any]:
    """What a recipe has no say in. The name stands for itself, since it is another one for other settings."""
    name = manifest["metadata"]["name"]
    pod = manifest["spec"]["template"]["spec"]
    container = {key: value for key, value in pod["containers"][0].items() if key != "resources"}
    kept = {
        "pod": {
            key: pod.get(key)
            for key in (
                "restartPolicy", "serviceAccountName", "automountServiceAccountToken", "securityContext", "hostNetwork",
                "hostPID", "hostIPC", "initContainers", "ephemeralContainers", "imagePullSecrets", "runtimeClassName",
                "shareProcessNamespace", "dnsPolicy", "dnsConfig", "hostAliases", "schedulerName", "nodeName",
            )
        },
        "containers": [container, *pod["containers"][1:]],
        "volumes": [(each["name"], sorted(each)) for each in pod["volumes"]],
        "labels": manifest["spec"]["template"]["metadata"]["labels"],
        "owner": manifest["metadata"]["ownerReferences"],
        "namespace": manifest["metadata"]["namespace"],
        "policy": manifest["spec"]["podFailurePolicy"],
    }  # fmt: skip
    found: dict[str, Any] = json.loads(json.dumps(kept).replace(name, "NAME"))
    return found


def plain_texts(manifest: Manifest) -> None:
    assert [each for each in texts(manifest) if not _PLAIN.fullmatch(each)] == []


def check(manifest: Manifest, expected: dict[str, Any]) -> None:
    assert guarded(manifest) == expected
    plain_texts(manifest)
    assert yaml.safe_load(yaml.safe_dump(manifest)) == manifest
    assert json.loads(json.dumps(manifest)) == manifest


toleration = st.fixed_dictionaries(
    {},
    optional={
        "key": text,
        "operator": st.one_of(st.sampled_from(["Exists", "Equal"]), text),
        "value": text,
        "effect": st.one_of(st.sampled_from(["NoSchedule", "NoExecute"]), text),
        "toleration_seconds": scalar,
    },
)
VALUES: dict[str, Any] = {
    **{name: scalar for name in ("cpu", "memory", "shm", "ephemeral_storage", "gpus", "parallelism", "spot")},
    **{name: text for name in ("gpu_resource", "priority_class", "queue", "topology")},
    "max_runtime_seconds": scalar,
    "node_selector": st.dictionaries(text, text, max_size=3),
    "tolerations": st.lists(toleration, max_size=3),
}


def test_every_field_of_pods_is_fuzzed() -> None:
    assert set(VALUES) | {"pods"} == set(PodSettings.model_fields)


@pytest.mark.parametrize("pods", [1, 2])
@pytest.mark.parametrize("field", VALUES)
def test_no_value_of_pods_gets_further_than_its_own_field(field: str, pods: int) -> None:
    plain = guarded(job({"pods": pods}, stage="dpo"))

    @settings(max_examples=30, deadline=None)
    @given(VALUES[field])
    def holds(value: Any) -> None:
        try:
            chosen = PodSettings.model_validate({field: value, "gpus": 1, "pods": pods} | {field: value})
        except ValidationError:
            return
        manifest = render_job(RUN, task(stage="dpo"), chosen, SETTINGS)
        check(manifest, plain)
        if is_gang(manifest):
            assert set(render_service(manifest)["spec"]) == {
                "clusterIP",
                "publishNotReadyAddresses",
                "selector",
                "ports",
            }

    holds()


@settings(max_examples=200, deadline=None)
@given(text, text)
def test_no_key_of_pods_is_taken_that_is_not_declared(key: str, value: str) -> None:
    if key not in PodSettings.model_fields:
        with pytest.raises(ValidationError):
            PodSettings.model_validate({key: value})


@settings(max_examples=60, deadline=None)
@given(text)
def test_a_runs_name_is_a_plain_word_or_refused(name: str) -> None:
    obj = trun()
    obj["metadata"]["name"] = name
    try:
        run = parse_run(obj, STORE)
    except StageError:
        return
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", run.name)
    manifest = render_job(run.ref, task(run=run.name), PodSettings(), SETTINGS)
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,56}", manifest["metadata"]["name"])


@settings(max_examples=200, deadline=None)
@given(text)
def test_a_task_takes_no_name_that_leaves_its_folder(name: str) -> None:
    for field in ("run", "node"):
        try:
            told = Task.model_validate(task().model_dump() | {field: name})
        except ValidationError:
            continue
        assert [part for part in told.key.split("/") if part in ("", ".", "..")] == [] and told.key.count("/") == 3
        plain_texts(render_job(RUN, told, PodSettings(), SETTINGS))


MARK = "s3ntinel"
FREE_TEXT: dict[str, dict[str, Any]] = {
    "about": {"about": MARK},
    "a hub id": {"teacher": {"model": f"org/{MARK}", "revision": MARK}},
    "rows": {"prepare": {"seeds": {"uri": f"store:inputs/{MARK}.jsonl", "fields": {"instruction": MARK}}}},
    "a template": {"instructions": {"template": f"{{{{ examples }}}} {MARK} $(HOME)", "prefill": MARK}},
    "a server": {
        "responses": {"engine": {"kind": "openai", "base_url": f"http://{MARK}/v1", "model": MARK}},
    },
}


@pytest.mark.parametrize("name", FREE_TEXT)
def test_a_recipes_free_text_reaches_no_manifest(name: str) -> None:
    run = parse_run(trun(FREE_TEXT[name]), STORE)
    assert MARK in run.recipe.model_dump_json()
    for node in build(run.recipe).nodes.values():
        told = task(run=run.name, node=node.name, stage=node.stage, settings=node.settings.model_dump(mode="json"))
        assert MARK not in json.dumps(render_job(run.ref, told, PodSettings(), SETTINGS))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["{}", "{}.jsonl", "store:{}.jsonl", "s3://{}.jsonl", "hf:{}"]), text)
def test_no_source_of_rows_names_a_file_of_the_machine(form: str, name: str) -> None:
    try:
        run = parse_run(trun({"prepare": {"seeds": {"uri": form.format(name)}}}), STORE)
    except StageError:
        return
    taken = run.recipe.section("prepare").seeds.uri  # type: ignore[attr-defined]
    scheme, _, rest = taken.partition(":")
    assert scheme in ("builtin", "store", "s3", "hf")
    assert ".." not in rest.split("/") and not re.search(r"[\x00-\x1f]", rest)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["{}", "store:{}", "builtin:{}", "org/{}"]), text)
def test_no_model_names_a_folder_of_the_machine(form: str, name: str) -> None:
    try:
        run = parse_run(trun({"student": {"model": form.format(name)}}), STORE)
    except StageError:
        return
    taken = run.recipe.student.model
    hub_id = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+", taken)
    assert hub_id or taken == "builtin:smollm2" or (taken.startswith("store:") and ".." not in taken.split("/"))
