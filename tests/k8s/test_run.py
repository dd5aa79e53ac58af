"""TailoringRun objects: what is a run, what is refused and with which words; the CRD and the model agree."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from flow.recipe import read_yaml
from flow.tasks import read_prompts
from k8s import names
from k8s.run import Rerun, RunSpec, parse_run
from stages.contract.errors import ExitCode, StageError

ROOT = Path(__file__).resolve().parents[2]
CRD: dict[str, Any] = yaml.safe_load((ROOT / "charts/montessori/files/tailoringruns.yaml").read_text(encoding="utf-8"))
VERSION: dict[str, Any] = CRD["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]["properties"]
STORE = "s3://montessori/team"
RECIPE: dict[str, Any] = {"teacher": {"model": "builtin:smollm2"}, "student": {"model": "org/tiny"}}


def trun(recipe: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "tailor", "namespace": "tailoring", "uid": "u1", "generation": 4},
        "spec": {"recipe": RECIPE | (recipe or {}), **spec},
    }


def refused(obj: dict[str, Any]) -> str:
    with pytest.raises(StageError) as caught:
        parse_run(obj, STORE)
    assert caught.value.code is ExitCode.BAD_SETTINGS
    return str(caught.value)


def test_an_object_is_a_checked_run_with_the_controllers_store() -> None:
    run = parse_run(trun({"run": {"retries": 5}}, cancel=True, rerun=[{"id": "a", "node": "prepare"}]), STORE)
    assert (run.name, run.namespace, run.uid, run.generation) == ("tailor", "tailoring", "u1", 4)
    assert (run.recipe.name, run.recipe.store, run.cancel) == ("tailor", STORE, True)
    assert run.rerun == (Rerun(id="a", node="prepare"),)
    assert run.ref.retries == 5


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_recipe_is_a_run(path: Path) -> None:
    obj = trun()
    obj["spec"]["recipe"] = recipe = read_yaml(path)
    if "rationales" in recipe:
        recipe["rationales"]["prompts"] = read_prompts(path.parent / recipe["rationales"]["prompts"], path.stem)
    obj["metadata"]["name"] = path.stem
    assert parse_run(obj, STORE).recipe.name == path.stem


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"name": "other"}, "the recipe's name is 'other' and the run's is 'tailor'"),
        ({"store": "s3://elsewhere/x"}, "the controller's is s3://montessori/team"),
        ({"dpo": {"betta": 1}}, "spec.recipe: dpo.betta: unknown key; did you mean 'beta'?"),
        ({"student": {"model": "/models/mine"}}, "spec.recipe.student: pods have no such model: '/models/mine'"),
        ({"student": {"model": "mine"}}, "no hub id"),
        ({"student": {"model": "../org/name"}}, "no hub id"),
        ({"student": {"model": "store:inputs/../../x"}}, "no key of a store"),
        ({"teacher": {"model": "builtin:other"}}, "there is no built-in model"),
        ({"prepare": {"seeds": {"uri": "seeds.jsonl"}}}, "spec.recipe.prepare.seeds: pods have no such file"),
        ({"prepare": {"reference": {"uri": "file:///etc/x.jsonl"}}}, "pods have no such file"),
        ({"prepare": {"seeds": {"uri": "store:../x.jsonl"}}}, "no key of a store"),
        ({"prepare": {"seeds": {"uri": "hf:/etc"}}}, "no dataset of the hub"),
        ({"method": "arte", "rationales": {"prompts": "ways"}}, "rationales.prompts: pods have no such folder: 'ways'"),
        (
            {"method": "arte", "panel": {"models": {"mine": {"model": "/models/mine"}}}},
            "panel.models.mine: pods have no such model",
        ),
    ],
)
def test_a_recipe_that_pods_cannot_run_is_refused_with_its_key(recipe: dict[str, Any], words: str) -> None:
    assert words in refused(trun(recipe))


@pytest.mark.parametrize(
    "uri", ["builtin:seeds", "store:inputs/ab/my seeds.jsonl", "s3://bucket/folder/rows.parquet", "hf:org/name"]
)
def test_rows_that_pods_can_read_are_taken(uri: str) -> None:
    assert parse_run(trun({"prepare": {"seeds": {"uri": uri}}}), STORE)


@pytest.mark.parametrize("value", [{"name": "tailor"}, {"store": STORE}, {"store": "file:.montessori"}])
def test_a_recipe_as_the_local_run_has_it_is_taken(value: dict[str, Any]) -> None:
    assert parse_run(trun(value), STORE).recipe.store == STORE


def test_a_name_that_no_run_may_have_is_refused() -> None:
    obj = trun()
    obj["metadata"]["name"] = "a.b"
    assert "lower-case letters" in refused(obj)


# spec without recipe → whether the CRD's schema and the model take it
SPECS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"cancel": True}, True),
    ({"cancel": "stop"}, False),
    ({"rerun": []}, True),
    ({"rerun": [{"id": "1"}]}, True),
    ({"rerun": [{"id": "1", "node": "it1.dpo", "down": True}]}, True),
    ({"rerun": [{"id": "1", "node": "it1.influence", "shards": [3, 7]}]}, True),
    ({"rerun": [{"node": "it1.dpo"}]}, False),
    ({"rerun": [{"id": ""}]}, False),
    ({"rerun": [{"id": "a b"}]}, False),
    ({"rerun": [{"id": "a" * 64}]}, False),
    ({"rerun": [{"id": "1", "node": ""}]}, False),
    ({"rerun": [{"id": "1", "node": "x", "shards": []}]}, False),
    ({"rerun": [{"id": "1", "node": "x", "shards": [-1]}]}, False),
    ({"rerun": [{"id": "1", "node": "x", "shards": [100_000]}]}, False),
    ({"rerun": [{"id": "1", "node": "x", "shards": "3"}]}, False),
    ({"rerun": [{"id": str(number)} for number in range(257)]}, False),
]


@pytest.mark.parametrize(("values", "good"), SPECS, ids=range(len(SPECS)))
def test_the_crd_and_the_model_take_the_same(values: dict[str, Any], good: bool) -> None:
    spec = {"recipe": RECIPE, **values}
    assert jsonschema.Draft7Validator(_without_unknown(SCHEMA["spec"])).is_valid(spec) is good
    if good:
        assert RunSpec.model_validate(spec)
    else:
        with pytest.raises(ValidationError):
            RunSpec.model_validate(spec, strict=False)


def _without_unknown(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with unknown keys refused, as strict clients and `kubectl` do, save where it preserves them."""
    result = copy.deepcopy(schema)
    if "properties" in result:
        result["properties"] = {name: _without_unknown(each) for name, each in result["properties"].items()}
        result["additionalProperties"] = bool(result.get("x-kubernetes-preserve-unknown-fields"))
    if "items" in result:
        result["items"] = _without_unknown(result["items"])
    return result


@pytest.mark.parametrize(
    ("rerun", "words"),
    [
        ({"shards": [1]}, "shards needs the node that has them"),
        ({"down": True}, "down needs the node from which to go down"),
        ({"node": "a", "shards": [1], "down": True}, "give shards or down, not both"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_both_with_the_same_words(
    rerun: dict[str, Any], words: str
) -> None:
    assert words in refused(trun(rerun=[{"id": "1", **rerun}]))
    rules = SCHEMA["spec"]["properties"]["rerun"]["items"]["x-kubernetes-validations"]
    assert words in [rule["message"] for rule in rules]  # that the server applies them: tests/cluster


def test_the_crd_has_the_fields_of_the_model_and_no_others() -> None:
    assert set(SCHEMA["spec"]["properties"]) == set(RunSpec.model_fields)
    assert set(SCHEMA["spec"]["properties"]["rerun"]["items"]["properties"]) == set(Rerun.model_fields)
    assert SCHEMA["status"]["properties"]["phase"]["enum"] == [str(phase) for phase in names.Phase]


def test_the_crd_is_named_as_the_code_has_it() -> None:
    spec = CRD["spec"]
    assert CRD["metadata"]["name"] == f"{names.PLURAL}.{names.GROUP}"
    assert (spec["group"], VERSION["name"]) == (names.GROUP, names.VERSION)
    told = spec["names"]
    assert (told["kind"], told["plural"], told["singular"]) == (names.KIND, names.PLURAL, names.SINGULAR)
    assert told["shortNames"] == [names.SHORT]
    assert "status" in VERSION["subresources"]


def test_kubectl_shows_phase_node_progress_and_age() -> None:
    columns = [each["name"] for each in VERSION["additionalPrinterColumns"] if not each.get("priority")]
    assert columns == ["Phase", "Node", "Progress", "Age"]


def test_every_field_that_people_write_is_described() -> None:
    for name, each in {
        **SCHEMA["spec"]["properties"],
        **SCHEMA["spec"]["properties"]["rerun"]["items"]["properties"],
    }.items():
        assert each.get("description"), name
