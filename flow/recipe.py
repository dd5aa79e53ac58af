"""A recipe: one readable YAML file that says everything about a run, checked as a whole before anything starts.

Sections carry the stages' names and are validated by the stages' own settings classes. Values come, strongest first,
from `--set dpo.beta=0.2`, from the environment (`MONTESSORI__DPO__BETA=0.2`), from the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from flow.methods import (
    NOT_OF_TASKS,
    SIGNALS_OF_TASKS,
    TAILORED,
    UNSIGNED,
    WITHOUT_STDERR,
    Baseline,
    Signal,
    Update,
)
from flow.mistakes import dotted, nearest, told
from flow.pods import PodsByStage
from stages.contract.catalog import spec
from stages.contract.errors import StageError, bad_settings
from stages.contract.spec import StageSettings
from stages.models.settings import ModelSource

ENVIRONMENT_PREFIX = "MONTESSORI__"
# Sections that a user writes; the report's settings are made by the graph.
SECTIONS = (
    "prepare", "instructions", "curate", "responses", "diversity", "warmup", "audit", "influence", "judge", "loss",
    "random", "aggregate", "reseed", "pairs", "dpo", "budget", "sft", "evaluate", "evalset", "replies", "winrate",
    "mtbench", "harness", "comparison",
    "tasks", "questions", "select", "rationales", "answers", "irt", "incontext", "preferences", "accuracy",
)  # fmt: skip
# Sections of ARTE alone, of reference rows and the students that they judge, and of rounds that train a teacher.
_OF_TASKS = ("tasks", "questions", "select", "rationales", "answers", "irt", "incontext", "preferences", "accuracy")
_OF_REFERENCE = (
    "prepare", "instructions", "curate", "responses", "evaluate", "evalset", "replies", "winrate", "mtbench", "harness",
)  # fmt: skip
_OF_ROUNDS = ("warmup", "audit", "influence", "loss", "aggregate", "reseed", "pairs")
# Sections and other fields that a method does not read, whatever else the recipe says.
UNREAD: dict[str, tuple[str, ...]] = {
    "montessori": ("panel", *_OF_TASKS),
    "arte": ("signal", "update", "iterate_student", *_OF_REFERENCE, *_OF_ROUNDS),
    "self-instruct": (
        "signal", "signals", "update", "iterations", "iterate_teacher", "iterate_student", "compare", "panel",
        *_OF_TASKS, *_OF_ROUNDS, "judge", "random", "dpo", "budget",
    ),
}  # fmt: skip
# Questions of one task are alike by its form: these gates of `diversity` are off for arte, unless a recipe sets them.
_GATES_OFF = {"least_distinct": 0.0, "most_self_rouge": 1.0, "most_in_one_cluster": 1.0, "most_in_evaluation": 1.0}
MOST_SHARDS = 100_000
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class RunSettings(BaseModel):
    """How a run is carried out; nothing here changes what it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: dict[str, int] = Field({}, description="shards by stage, such as {influence: 64}; 1 where not named")
    retries: int = Field(3, ge=0, description="failures of one shard that are tried again")
    jobs: int = Field(1, ge=1, description="shards that a local run works on at once")
    pods: PodsByStage = Field({}, description="what pods ask of a cluster: `default`, and by stage on top of it")

    @field_validator("shards")
    @classmethod
    def _known_and_sharded(cls, value: dict[str, int]) -> dict[str, int]:
        for stage, count in value.items():
            if stage not in SECTIONS:
                raise ValueError(f"there is no stage {stage!r}{nearest(stage, SECTIONS)}")
            if count < 1:
                raise ValueError(f"{stage} needs at least one shard")
            if count > MOST_SHARDS:
                raise ValueError(f"{stage} can have {MOST_SHARDS:,} shards at most: a Kubernetes Job's indices")
            if count > 1 and not spec(stage).sharded:
                raise ValueError(f"{stage} cannot be sharded")
        return value


class PanelSettings(BaseModel):
    """ARTE: whose answers choose the preference set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, ModelSource] = Field(
        {}, description="models by name; the student and the teacher if none is given. ARTE: 5"
    )
    shots: tuple[Annotated[int, Field(ge=0, le=32)], ...] = Field(
        (0, 1, 2, 3), min_length=1, description="numbers of examples that each answers after"
    )

    @field_validator("models")
    @classmethod
    def _plain_names(cls, value: dict[str, ModelSource]) -> dict[str, ModelSource]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a model's name has lower-case letters, digits and dashes only, not {name!r}")
        return value


class RecipeBase(BaseSettings):
    """The part of a recipe that is not a stage's section."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )

    name: str = Field(description="the run's name: lower-case letters, digits and dashes, at most 40")
    about: str = Field("", description="what the run is for, in a sentence")
    method: Literal["montessori", "arte", "self-instruct"] = Field(
        "montessori",
        description="arte drafts questions of tasks and scores them in context; self-instruct generates with the "
        "unmodified teacher and trains the student",
    )
    store: str = Field("file:.montessori", description="where artifacts live: a folder or s3://bucket/prefix")
    iterations: int = Field(1, ge=1, le=10, description="rounds of probing and teacher training")
    iterate_teacher: Literal["previous", "base"] = Field(
        "previous", description="which weights DPO starts from in iteration 2 and later"
    )
    iterate_student: Literal["base", "previous"] = Field(
        "base",
        description="which student the warm-up starts from in iteration 2 and later: the recipe's, or the one that the "
        "warm-up before left; the final training always starts from the recipe's",
    )
    signal: Signal = Field(
        "influence",
        description="what candidates are scored by: influence; judge (Self-Reward); loss (the student's own, as in "
        "LLM2LLM); random (the control)",
    )
    signals: tuple[Signal, ...] = Field(
        (), description="further signals on the same candidates, which only the report reads: how far they agree"
    )
    update: Update = Field(
        "dpo",
        description="what the scores are for: dpo trains the teacher on pairs; reseed shows the unmodified teacher the "
        "best-scored instructions instead of the seeds (bootstrap, LLM2LLM)",
    )
    compare: tuple[Baseline, ...] = Field(
        (),
        description="sibling branches with all else equal, sharing every node that is the same: self-instruct (the "
        "unmodified teacher's data), self-reward (judge, dpo), llm2llm (loss, reseed), bootstrap (influence, reseed), "
        "random (the recipe's own method on shuffled scores), no-finetuning (the untrained student)",
    )
    transfer: dict[str, ModelSource] = Field(
        {}, description="further students by name, trained on every branch's data and evaluated beside the student"
    )
    measure: bool = Field(True, description="score the final data of every branch, to compare their influence")
    teacher: ModelSource = Field(description="the model that writes the data")
    student: ModelSource = Field(description="the model that learns from it")
    judge_model: ModelSource | None = Field(
        None,
        description="the model that judges answers, where a stage has a judge; the teacher as it came if not given. "
        "A judge behind a server (engine.kind: openai) is named by that stage's engine.model",
    )
    fresh: dict[str, dict[str, Any]] = Field(
        {}, description="settings of the final data's stages where they differ, by section"
    )
    seeds: tuple[int, ...] = Field(
        (),
        description="training seeds of the students, such as [1, 2, 3]: every branch's student is trained once with "
        "each, and intervals are over them as well; none: one student a branch, with sft.seed",
    )
    benchmarks: tuple[Literal["winrate", "mtbench", "harness"], ...] = Field(
        (), description="what the students are compared by beside their held-out loss; each has a section"
    )
    panel: PanelSettings = Field(PanelSettings(), description="arte: whose answers choose the preference set")
    run: RunSettings = RunSettings()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a run's name has lower-case letters, digits and dashes only, at most 40")
        return value

    @field_validator("seeds", "benchmarks", "compare", "signals")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = next((each for each in value if value.count(each) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} stands twice")
        return value

    @field_validator("transfer")
    @classmethod
    def _plain_names(cls, value: dict[str, ModelSource]) -> dict[str, ModelSource]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a student's name has lower-case letters, digits and dashes only, not {name!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _gates_for_tasks(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = values.get("diversity", {})
        if values.get("method") != "arte" or not isinstance(given, Mapping):
            return values
        return {**values, "diversity": {**_GATES_OFF, **given}}

    @model_validator(mode="after")
    def _scores_have_the_signs_that_pairs_need(self) -> RecipeBase:
        pairs: Any = self.section("pairs")
        if self.method == "montessori" and self.update == "dpo" and self.signal in UNSIGNED and pairs.policy == "all":
            raise ValueError(
                f"pairs.policy: all pairs positive with negative scores, and those of {self.signal} have no sign; "
                "best_worst or ranked"
            )
        return self

    @model_validator(mode="after")
    def _gaps_have_the_standard_errors_that_pairs_ask_for(self) -> RecipeBase:
        pairs, responses, judge = (self.section(name).model_dump() for name in ("pairs", "responses", "judge"))
        paired = self._paired()
        if not pairs["least_gap_se"] or not paired:
            return self
        asks = "pairs.least_gap_se asks for a gap in standard errors, and"
        if pairs["optimise"] != "responses" and responses["samples"] == 1:
            raise ValueError(f"{asks} a mean of one response has none (responses.samples: 1); 2 or more, or a gap of 0")
        if pairs["optimise"] != "instructions" and "judge" in paired and judge["samples"] == 1:
            raise ValueError(f"{asks} a single rating has none (judge.samples: 1); 2 or more, or a gap of 0")
        if pairs["optimise"] != "instructions" and (unknown := paired.intersection(WITHOUT_STDERR)):
            raise ValueError(f"{asks} a response's {min(unknown)} has none; optimise: instructions, or a gap of 0")
        return self

    @model_validator(mode="after")
    def _reliability_that_pairs_ask_for_can_be_known(self) -> RecipeBase:
        pairs, writer, responses = (self.section(name).model_dump() for name in ("pairs", "instructions", "responses"))
        # The control of random scores is not asked for it.
        if not pairs["least_reliability"] or not self._paired() - {"random"}:
            return self
        asks = "pairs.least_reliability asks how reliable instructions' mean scores are, and"
        if pairs["optimise"] == "responses":
            raise ValueError(f"{asks} optimise: responses pairs no instructions; optimise: both, or ask for 0")
        for section, values, of in (("responses", responses, "response"), ("instructions", writer, "instruction")):
            if values["samples"] == 1:
                raise ValueError(
                    f"{asks} one {of} tells nothing of it ({section}.samples: 1); 2 or more, or leave it out"
                )
        return self

    def _paired(self) -> set[str]:
        """The signals that preference pairs are made by."""
        if self.method != "montessori":
            return set()
        own = {self.signal} if self.update == "dpo" else set()
        return own | ({"judge"} if "self-reward" in self.compare else set())

    @model_validator(mode="after")
    def _nothing_that_the_method_does_not_read(self) -> RecipeBase:
        # By value: a recipe that comes back from the store has every field set.
        fields = type(self).model_fields
        unread = [name for name in UNREAD[self.method] if getattr(self, name) != fields[name].default]
        unread += [f"fresh.{name}" for name in self.fresh if name in UNREAD[self.method]]
        if unread:
            raise ValueError(
                f"{', '.join(unread)}: method {self.method} does not read {'it' if len(unread) == 1 else 'them'}"
            )
        if self.method == "arte" and self.section("dpo").model_dump()["checkpoints"]:
            raise ValueError("dpo.checkpoints: method arte looks at its teachers after their training only")
        return self

    @model_validator(mode="after")
    def _budget_fits(self) -> RecipeBase:
        budget, sft = (self.section(name).model_dump() for name in ("budget", "sft"))
        if budget["match"] in ("tokens", "device_seconds") and sft["rows"] is not None:
            raise ValueError(f"sft.rows fixes the rows; leave it out to match {budget['match']} (budget.match)")
        for name in budget["prompts"]:
            if name != TAILORED and name not in self.compare:
                raise ValueError(
                    f"budget.prompts: there is no branch {name!r}{nearest(name, (TAILORED, *self.compare))}"
                )
        return self

    @model_validator(mode="after")
    def _fresh_sections(self) -> RecipeBase:
        allowed = (
            "instructions", "curate", "responses", "diversity", "influence", "questions", "select", "rationales",
        )  # fmt: skip
        for section, values in self.fresh.items():
            if section not in allowed:
                raise ValueError(f"fresh has no section {section!r}{nearest(section, allowed)}")
            self.fresh_settings(section, values)
        return self

    @model_validator(mode="after")
    def _what_arte_compares(self) -> RecipeBase:
        if self.method == "arte" and (other := next((each for each in self.compare if each in NOT_OF_TASKS), None)):
            raise ValueError(f"compare: arte cannot be compared with {other}: {NOT_OF_TASKS[other]}")
        if self.method == "arte" and (
            of := next((each for each in self.signals if each not in SIGNALS_OF_TASKS), None)
        ):
            raise ValueError(f"signals: arte's drafts are scored by {', '.join(SIGNALS_OF_TASKS)} besides, not by {of}")
        if self.method == "arte" and self.benchmarks:
            raise ValueError("benchmarks: arte's students are judged by the tasks' own test questions")
        return self

    @model_validator(mode="after")
    def _audit_probes_as_influence_does(self) -> RecipeBase:
        audit, influence = self.section("audit"), self.section("influence")
        for name in sorted(type(audit).model_fields.keys() & type(influence).model_fields):
            # By value: a recipe that comes back from the store has every field set.
            if getattr(audit, name) != type(audit).model_fields[name].default:
                raise ValueError(f"audit.{name}: the audit probes as influence does; set influence.{name}")
        return self

    def section(self, stage: str) -> StageSettings:
        value = getattr(self, stage)
        assert isinstance(value, StageSettings)
        return value

    def fresh_settings(self, stage: str, overrides: Mapping[str, Any] | None = None) -> StageSettings:
        """A stage's settings for the final data: its section, with what `fresh` says on top."""
        values = self.fresh.get(stage, {}) if overrides is None else overrides
        base = self.section(stage)
        merged = merge(base.model_dump(mode="json", exclude_unset=True), values)
        try:
            return type(base).model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"fresh.{stage}.{dotted(first['loc'])}: {first['msg']}") from None


@cache
def recipe_class() -> type[RecipeBase]:
    """`RecipeBase` with one field for every stage's section; making it takes a tenth of a second."""
    fields: dict[str, Any] = {}
    for stage in SECTIONS:
        declared = spec(stage)
        try:
            default = declared.settings()
        except ValidationError:  # a section with a value that has no default must be written
            fields[stage] = (declared.settings, Field(description=declared.about))
        else:
            fields[stage] = (declared.settings, Field(default, description=declared.about))
    return create_model("Recipe", __base__=RecipeBase, **fields)


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> RecipeBase:
    """Reads and checks a recipe.

    Raises:
        StageError: BAD_SETTINGS naming the file, every wrong key and the nearest right one.
    """
    return check_recipe(read_yaml(path), overrides or {}, where=str(path))


def check_recipe(data: Mapping[str, Any], overrides: Mapping[str, Any], *, where: str) -> RecipeBase:
    """Validates a recipe's values with environment and `--set` on top."""
    base = recipe_class()
    _check_environment(base)

    class FromFile(base):  # type: ignore[misc, valid-type]
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (_Fixed(settings_cls, dict(overrides)), env_settings, _Fixed(settings_cls, dict(data)))

    try:
        recipe = FromFile()
    except ValidationError as error:
        raise bad_settings(told(error, base), where=where) from None
    except Exception as error:  # pydantic-settings wraps an unreadable environment value in its own error
        if type(error).__name__ == "SettingsError":
            raise bad_settings(f"an environment override cannot be read: {error}", where=ENVIRONMENT_PREFIX) from None
        raise
    assert isinstance(recipe, RecipeBase)
    return recipe


def _check_environment(model: type[BaseModel]) -> None:
    """Refuses an override of no known section; what stands behind a known one is checked with the recipe."""
    for name in os.environ:
        if not name.upper().startswith(ENVIRONMENT_PREFIX):
            continue
        section = name[len(ENVIRONMENT_PREFIX) :].partition("__")[0].lower()
        if section not in model.model_fields:
            known = list(model.model_fields)
            raise bad_settings(f"unknown key {section!r}{nearest(section, known)}", where=f"environment: {name}")


class _Fixed(PydanticBaseSettingsSource):
    """A source whose values are already a mapping."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; anything else is a StageError (BAD_SETTINGS) with the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise bad_settings("there is no such recipe", where=str(path), hint="montessori init writes one") from None
    except IsADirectoryError:
        raise bad_settings("this is a folder, not a recipe", where=str(path)) from None
    except (UnicodeDecodeError, OSError) as error:
        raise bad_settings(f"the recipe cannot be read: {error}", where=str(path)) from None
    try:
        data = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise bad_settings(f"not valid YAML: {getattr(error, 'problem', error)}", where=f"{path}{line}") from None
    if not isinstance(data, dict):
        raise bad_settings("a recipe is a mapping of keys to values", where=str(path))
    return data


class _UniqueKeys(yaml.SafeLoader):
    """A loader for which a key written twice is an error: the second would silently win otherwise.

    It also reads `5e-6` as a number: YAML 1.1 wants a dot in it, people do not write one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key is a word, not {key!r} (quotes make one of it)", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_UniqueKeys.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def parse_set(assignments: list[str]) -> dict[str, Any]:
    """`["dpo.beta=0.2", "compare=[]"]` as a nested mapping; values are YAML."""
    result: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise bad_settings("an override is KEY=VALUE", where=f"--set {text}", hint="such as --set dpo.beta=0.2")
        try:
            parsed = yaml.load(value, Loader=_UniqueKeys)
        except yaml.YAMLError:
            raise bad_settings("the value is not valid YAML", where=f"--set {text}") from None
        for part in reversed(key.split(".")):
            parsed = {part: parsed}
        result = merge(result, parsed)
    return result


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merged key by key, `top` winning."""
    result = dict(base)
    for key, value in top.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


__all__ = ["SECTIONS", "RecipeBase", "StageError", "check_recipe", "load_recipe", "merge", "parse_set", "read_yaml"]
