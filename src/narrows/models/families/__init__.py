"""Families of models whose attention can be narrowed, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.models.families.bert import Bert, MPNet
from narrows.models.families.gemma3 import Gemma3
from narrows.models.families.gpt2 import Gpt2
from narrows.models.families.llama import Llama
from narrows.models.families.vit import Vit

if TYPE_CHECKING:
    from torch import nn

    from narrows.models.families._family import Family

FAMILIES: tuple[Family, ...] = (Llama(), Gemma3(), Gpt2(), Bert(), MPNet(), Vit())


def family_of(module: nn.Module) -> Family | None:
    """Return the family whose attention a module is; None: it is not known."""
    return next((family for family in FAMILIES if family.matches(module)), None)
