"""One figure of a long run: what was asked, what was reached, and whether that is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "failed", "not shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a run counted.

    Attributes:
        part: of the run: "right", "files" ...
        name: what was counted, in words.
        asked: what it must be, in words.
        reached: what it was, in words; for "not shown" what this machine lacks.
        status: "ok", "failed", or "not shown", which never counts as passed.
        count: how many cases were tried.
        details: failures, one line each, with the command that repeats them; the first few.
    """

    part: str
    name: str
    asked: str
    reached: str
    status: Status
    count: int = 0
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f"{self.name}: {self.reached} (asked: {self.asked}; {self.count:,} tried)"
        line = f"{self.status:<9}  {self.part:<11}  {told}"
        return "\n".join([line, *(f"           {one}" for one in self.details)])
