"""Settings of the audit: those of the probes it judges, and how many candidates it looks at."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSpec
from stages.influence.settings import PACKAGES, ProbeSettings


class AuditSettings(ProbeSettings):
    """How much is spent on knowing how far first order can be trusted."""

    size: int = Field(
        32, ge=0, description="candidates scored both ways, drawn uniformly; 0 leaves the audit out of the run"
    )
    threshold: float = Field(
        0.9, ge=-1, le=1, description="least Spearman correlation; below it two_stage scores every candidate exactly"
    )
    noise_candidates: int = Field(2, ge=1, description="candidates whose scores are evaluated with other roundings")
    noise_draws: int = Field(2, ge=2, description="other roundings of each")


SPEC = StageSpec(
    name="audit",
    version=3,
    settings=AuditSettings,
    about="first order against exact on a uniform sample, and the noise floor of both",
    inputs=("rows", "checkpoint", "reference"),
    packages=PACKAGES,
)
