"""Settings of the approval service; each field is `HALLMARK_<FIELD>` in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from kit.settings import Settings

Seconds = Annotated[float, Field(ge=0, le=86_400)]


class ApprovalSettings(Settings):
    """`settle_seconds`: how long a complete quorum waits for a rejection cast at the same moment."""

    port: int = 8802
    decision_key: Path
    settle_seconds: Seconds = 0.25
    sweep_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
