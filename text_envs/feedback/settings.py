"""How the page for people works."""

from __future__ import annotations

from dataclasses import dataclass

from . import leases, sessions


@dataclass(frozen=True)
class Settings:
    """How the page works.

    Attributes:
        annotations_per_pair: how many annotators are to answer each pair; with two or more, agreement is measured.
        lease_seconds: how long a pair is kept for the browser that was shown it.
        session_seconds: after which everybody logs in again.
        idle_seconds: without a request, after which one logs in again.
        tls: whether the page is reached by https.
    """

    annotations_per_pair: int = 1
    lease_seconds: float = leases.SECONDS
    session_seconds: float = sessions.LONGEST
    idle_seconds: float = sessions.IDLE
    tls: bool = False

    def __post_init__(self) -> None:
        if self.annotations_per_pair < 1:
            raise ValueError(f"each pair is compared by at least 1 annotator, got {self.annotations_per_pair}")
        for name in ("lease_seconds", "session_seconds", "idle_seconds"):
            if not 1 <= getattr(self, name) < 1e9:  # not NaN either
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}")
