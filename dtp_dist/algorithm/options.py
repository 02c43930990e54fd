"""Typed, frozen options: the schema of a run, each field with its type, its range and one sentence.

The classes are plain dataclasses, so that the algorithm depends on nothing but torch and ``annotated_types``.
Ranges, choices and variants are metadata of the types, as pydantic reads them: ``dtp_dist.config`` has it
parse and check what a user writes, and words the errors. What a class checks across its own fields is in its
``__post_init__``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from dtp_dist.errors import RangeError as RangeError
from dtp_dist.errors import in_one_line

Count = Annotated[int, Ge(1)]
Whole = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]


class OneOf:
    """Metadata of a word's type: one of ``names``, or with ``imported`` a ``package.module:function``."""

    IMPORTED = "package.module:function"

    def __init__(self, *names: str, imported: bool = False) -> None:
        self.names, self.imported = names, imported

    @property
    def allowed(self) -> str:
        """What the word may be, in words."""
        return ", ".join([*self.names, *([self.IMPORTED] if self.imported else [])])

    def __get_pydantic_core_schema__(self, _source: Any, handler: Any) -> Any:
        words = handler.generate_schema(Literal[self.names])
        path = {"type": "str", "pattern": r"^[^\s:{}\[\]]+:\w+$", "strict": True}
        return {"type": "union", "choices": [words, path]} if self.imported else words


class Variants:
    """Metadata of a section's type: its key ``tag`` says which of several classes it is.

    Args:
        tag: the key, a field of each class; None where there is one class alone, or a number.
        classes: by the tag's value.
        imported: the class of a tag with a colon, such as ``package.module:Class``, where they are allowed:
            a function of the tag, which raises RangeError if there is no such class.
        form: how such a tag is written.
        plain: the type of a number or a word, where one may stand in place of the section.
    """

    PLAIN = "plain"

    def __init__(
        self,
        tag: str | None,
        classes: Mapping[str, type[Any]],
        *,
        imported: Callable[[str], Any] | None = None,
        form: str = "package.module:Class",
        plain: Any = None,
    ) -> None:
        self.tag, self.classes, self.imported, self.plain = tag, classes, imported, plain
        self.form = form

    @property
    def names(self) -> list[str]:
        """What the tag may be, in words."""
        return [*self.classes, *([self.form] if self.imported else [])]

    def member(self, tag: object) -> Any:
        """Return the class of a tag, None where there is none.

        Raises:
            RangeError: of an import path: it can't be imported, or is not what it must be.
        """
        if isinstance(tag, str) and ":" in tag:
            return self.imported and self.imported(tag)
        return self.classes.get(tag) if isinstance(tag, str) else None

    def member_of(self, value: Any) -> Any:
        """Return the class or the plain type that a value is meant for, None where there is none.

        Raises:
            RangeError: as ``member``.
        """
        label = self._label(value)
        return self.plain if label == self.PLAIN else self.member(self._tag(value))

    def _tag(self, value: Any) -> Any:
        if self.tag is None:
            return next(iter(self.classes))
        return value.get(self.tag) if isinstance(value, Mapping) else getattr(value, self.tag, None)

    def _label(self, value: Any) -> str | None:
        """Return the name of the choice that a value is meant for."""
        if self.plain is not None and not isinstance(value, Mapping | Options):
            return self.PLAIN
        tag = self._tag(value)
        if not isinstance(tag, str):
            return None
        return (self.form if self.imported else None) if ":" in tag else tag if tag in self.classes else None

    def _parsed(self, value: Any, info: Any) -> Any:
        """Return the options of an imported class; whoever validates brings along what parses them."""
        try:
            return info.context(self.member_of(value), value)
        except ValueError:
            raise
        except Exception as error:
            text = in_one_line(error)
            raise RangeError("", f"making {self._tag(value)!r} of these keys raised {text}") from error

    def __get_pydantic_core_schema__(self, _source: Any, handler: Any) -> Any:
        choices = {name: handler.generate_schema(each) for name, each in self.classes.items()}
        if self.plain is not None:
            choices[self.PLAIN] = handler.generate_schema(self.plain)
        if self.imported is not None:
            parsed = {"type": "with-info", "function": self._parsed}
            choices[self.form] = {"type": "function-plain", "function": parsed}
        return {"type": "tagged-union", "discriminator": self._label, "choices": choices}


def option(default: Any = MISSING, *, doc: str) -> Any:
    """Return a dataclass field with a sentence ``doc``, units included."""
    if callable(default):
        return field(default_factory=default, metadata={"doc": doc})
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every section of a configuration."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
        "revalidate_instances": "always",
    }

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Take a mapping for an instance: strictness is for the fields."""
        return {**handler(source), "strict": False}
