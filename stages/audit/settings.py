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
    noise_candidates: int = Field(
        4,
        ge=1,
        description="candidates whose scores are evaluated with other roundings; each draw is a reference pass for "
        "each, and one more: 20 passes for 4 draws of 4 candidates, beside the `size` passes of the audit itself",
    )
    noise_draws: int = Field(
        4, ge=2, description="other roundings of each; of 4 for 4 candidates 2σ covers 91 % of errors, of 2 for 2 79 %"
    )


SPEC = StageSpec(
    name="audit",
    version=5,
    settings=AuditSettings,
    about="first order against exact on a uniform sample, and the noise floor of both",
    inputs=("rows", "checkpoint", "reference"),
    packages=PACKAGES,
)
