"""Which tasks a run is about, and how their questions are split."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stages.contract.spec import StageSettings, StageSpec
from stages.prepare.settings import Fields, Source
from stages.tasks.kinds import KINDS, Kind
from stages.tasks.rules import RULES


class TaskSource(Source):
    """Questions from a file or a hub; by default with the field names of Big-Bench-Hard."""

    fields: Fields = Field(
        Fields(instruction="input", response="target"), description="names of the fields in this source"
    )


class TaskSettings(BaseModel):
    """One task: made by rule, or read from sources."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str | None = Field(None, description=f"make the questions by rule: {', '.join(RULES)}")
    sources: tuple[TaskSource, ...] = Field((), description="or read them: rows with a question and its answer")
    kind: Kind | None = Field(None, description=f"what the answers are: {', '.join(KINDS)}; a rule knows its own")
    labels: tuple[str, ...] = Field((), description="kind labels: every answer that there can be")
    category: str | None = Field(None, description="group of tasks in the tables of accuracy; a rule knows its own")
    about: str | None = Field(
        None, description="what the questions ask, in some words, for the prompt that drafts more"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> TaskSettings:
        if (self.rule is None) == (not self.sources):
            raise ValueError("a task has either a rule or sources")
        if self.rule is not None and self.rule not in RULES:
            raise ValueError(f"there is no rule {self.rule!r}; there is {', '.join(RULES)}")
        if self.sources and (self.kind is None or self.about is None):
            raise ValueError("a task that is read from sources needs kind and about")
        if self.rule is not None and self.kind is not None and self.kind != RULES[self.rule].kind:
            raise ValueError(f"the rule {self.rule} makes answers of kind {RULES[self.rule].kind}, not {self.kind}")
        return self

    @model_validator(mode="after")
    def _labels_for_labels(self) -> TaskSettings:
        if (self.answers == "labels") != bool(self.labels):
            raise ValueError("labels go with kind labels, which needs them")
        return self

    @property
    def answers(self) -> Kind:
        kind = RULES[self.rule].kind if self.rule else self.kind
        assert kind is not None
        return kind

    @property
    def group(self) -> str:
        return self.category or (RULES[self.rule].category if self.rule else "other")

    @property
    def subject(self) -> str:
        return self.about or (RULES[self.rule].about if self.rule else "")


class TasksSettings(StageSettings):
    """Settings of `tasks`."""

    tasks: dict[str, TaskSettings] = Field(
        {name: TaskSettings(rule=name) for name in ("boolean_expressions", "object_counting", "word_sorting")},
        min_length=1,
        description="the tasks by name",
    )
    seeds: int = Field(10, ge=1, description="questions of each task that prompts show: to the teacher, and as shots")
    validation: int = Field(
        100, ge=1, description="questions of each task from which the preference set is chosen; ARTE: 100"
    )
    test: int | None = Field(
        None,
        ge=1,
        description="questions of each task that students are judged on; by default all others of a file, "
        "and 100 of a rule",
    )
    seed: int = Field(0, ge=0, description="of what is made by rule and of the split")

    @field_validator("tasks")
    @classmethod
    def _plain_names(cls, tasks: dict[str, TaskSettings]) -> dict[str, TaskSettings]:
        for name in tasks:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"a task's name has letters, digits, - and _ only, not {name!r}")
        return tasks


SPEC = StageSpec(
    name="tasks",
    version=1,
    settings=TasksSettings,
    about="questions with known answers by task, split into seeds, validation and test",
)
