"""Settings of the checks on diversity and contamination."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec, resource

ALL_TASKS = "all tasks"  # beside the tasks by name, which have no space in them


class DiversitySettings(StageSettings):
    """What is measured, and the gates. A gate of 0 or 1, whichever nothing can fail, switches it off."""

    sample: int = Field(
        256, ge=2, description="texts that are compared with each other, drawn by hash; measures depend on the number"
    )
    cluster_threshold: float = Field(
        0.5, gt=0, lt=1, description="ROUGE-L F1 above which a text belongs to the cluster of an earlier one"
    )
    response_words: int = Field(100, ge=4, description="words of a response, from its beginning, that are compared")
    overlap_words: int = Field(8, ge=3, description="words in a row that make an overlap with an evaluation row")
    gate_after: int = Field(32, ge=2, description="texts that the gates on diversity need before they look")
    least_distinct: float = resource(
        0.2, ge=0, le=1, description="gate: share of distinct pairs of words (distinct-2) among all of the sample"
    )
    most_self_rouge: float = resource(
        0.8, ge=0, le=1, description="gate: mean over texts of the ROUGE-L F1 with the nearest other text"
    )
    most_in_one_cluster: float = resource(
        0.5, ge=0, le=1, description="gate: share of the sample in its largest cluster"
    )
    least_kept: float = resource(
        0.5,
        ge=0,
        le=1,
        description="gate, ARTE: a trained teacher's distinct questions, and their distinct-2, over those of as many "
        "questions of the unmodified one, in each task and in all",
    )
    most_contaminated: float = resource(
        0.05,
        ge=0,
        le=1,
        description="gate: share of the usable rows that share so many words in a row with a held-out reference row",
    )
    most_in_evaluation: float = resource(
        0.05,
        ge=0,
        le=1,
        description="gate: the same with a question (or its reference answer) of any one evaluation set",
    )


SPEC = StageSpec(
    name="diversity",
    version=3,
    settings=DiversitySettings,
    about="distinct-n, self-ROUGE, clusters, and overlap with what students are judged on",
    inputs=("instructions", "rows"),
    optional=("reference", "evaluation.*", "unmodified"),
)
