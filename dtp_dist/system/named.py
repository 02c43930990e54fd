"""The configurations that come with the package, by name: ``digits_dtp`` means one from anywhere."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from dtp_dist.errors import ConfigError
from dtp_dist.text.foreign import TEXT_BYTES, read_file

SUFFIX = ".yaml"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
"""Where they are: in a checkout, a link to its ``configs/``."""

SPACES = CONFIGS / "spaces"
"""Where the spaces of ``dtp-dist tune`` are."""


def names(folder: Path = CONFIGS) -> list[str]:
    """Return what configurations, or spaces, there are by name, sorted."""
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))


def named_file(source: str | os.PathLike[str], folder: Path = CONFIGS) -> Path:
    """Return the file that ``source`` names: a path, or one that comes with the package.

    A file in the working directory comes first: ``source`` itself, then that with ``.yaml`` behind it.

    Args:
        source: as a user wrote it.
        folder: where those of the package are, CONFIGS or SPACES.

    Raises:
        ConfigError: there is no such file, and none of that name; says the nearest names.
    """
    path = Path(source)
    if path.exists() or path.is_symlink() or len(path.parts) != 1:
        return path
    stem = path.name.removesuffix(SUFFIX)
    for found in (Path(f"{path.name}{SUFFIX}"), folder / f"{stem}{SUFFIX}"):
        if found.is_file():
            return found
    kind, more = (
        ("space", "") if folder == SPACES else ("configuration", "; dtp-dist config --list shows all")
    )
    near = difflib.get_close_matches(stem, names(folder), n=3, cutoff=0.5) or names(folder)[:3]
    text = f"there is no such file here, and the package has no {kind} of that name; name a {kind} file"
    raise ConfigError(f"{path}: {text}, or one of the package's: {', '.join(near)}{more}")


def described(folder: Path = CONFIGS) -> Iterator[tuple[str, str]]:
    """Yield each name and the first sentence of the comment that its file begins with."""
    for name in names(folder):
        lines = read_file(folder / f"{name}{SUFFIX}", TEXT_BYTES).decode().splitlines()
        comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
        yield name, _first_sentence(comment)


def _first_sentence(text: str) -> str:
    """Return what comes before the first full stop that a capital follows: "et al. 2015" continues."""
    words = text.split()
    for place, (word, following) in enumerate(zip(words, [*words[1:], "A"], strict=True), 1):
        if word.endswith((".", ".)")) and following[:1].isupper():
            return " ".join(words[:place]).removesuffix(".")
    return text
