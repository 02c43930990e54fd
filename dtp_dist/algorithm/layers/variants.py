"""Which kinds of layers there are: a table that the package fills in, so that a kind may hold layers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from dtp_dist.algorithm.layers.base import LayerOptions
from dtp_dist.algorithm.layers.user.module import ModuleOptions
from dtp_dist.algorithm.options import Variants

KINDS: dict[str, type[Any]] = {}
AUTO = "auto"

_FORM = "package.module:function"


def _imported(_path: str) -> type[Any]:
    return ModuleOptions


LAYER_VARIANTS = Variants("kind", KINDS, imported=_imported, form=_FORM)
AnyLayer = Annotated[LayerOptions, LAYER_VARIANTS]
LayerOrAuto = Annotated[
    LayerOptions | str, Variants("kind", KINDS, imported=_imported, form=_FORM, plain=Literal["auto"])
]
