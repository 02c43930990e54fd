"""What a shell may complete a word to. Where it is nothing, the shell completes names of files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

YAML = (".yaml", ".yml")
RUNS = Path("runs")


def configs(incomplete: str) -> list[str]:
    """Return the names of the package's configurations, and the YAML files in the working directory."""
    from dtp_dist.system.named import names

    return _beginning(incomplete, [*names(), *_yaml_files()])


def spaces(incomplete: str) -> list[str]:
    """Return the names of the package's spaces, and the YAML files in the working directory."""
    from dtp_dist.system.named import SPACES, names

    return _beginning(incomplete, [*names(SPACES), *_yaml_files()])


def runs(incomplete: str) -> list[str]:
    """Return the folders in ``runs/`` that hold a run, the newest first."""
    from dtp_dist.storage.run_files import CONFIG

    folders = [path.parent for path in RUNS.glob(f"*/{CONFIG}")]
    newest = sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return _beginning(incomplete, map(str, newest))


def keys(incomplete: str) -> list[tuple[str, str]]:
    """Return the dotted keys of a configuration with what each means; a value is not completed.

    They come from the schema, which takes as long to import as torch does. Those of layers are left out.
    """
    if "=" in incomplete:
        return []
    from dtp_dist.config.explain import explain

    found = {f"{written}=": doc for key, _, _, doc in explain() for written in _dotted(key)}
    return [(key, doc) for key, doc in found.items() if key.startswith(incomplete)]


def _dotted(key: str) -> list[str]:
    """Return a key of the reference, such as ``optimizer.forward|inverse[adam].lr``, as it is written."""
    section, variant, rest = key.partition("[")
    if not variant:
        return [key]
    if section.startswith(("model.layers", "any ")):
        return []
    section, _, names = section.rpartition(".")
    name = rest.partition("]")[2]
    return [f"{section}.{each}{name}".lstrip(".") for each in names.split("|")]


def _yaml_files() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.suffix in YAML)


def _beginning(incomplete: str, found: Iterable[str]) -> list[str]:
    return [each for each in found if each.startswith(incomplete)]
