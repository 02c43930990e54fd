"""Where modules are imported from, and what ``package.module:name`` in a configuration names.

Modules of a user's lie next to the configuration or in the working directory. Both are searched last, so that
no file in them hides an installed module. Python itself puts the working directory first (``python -m``, an
empty entry of PYTHONPATH), or the folder of the script; a file ``random.py`` that lies there for another
reason then takes the place of the standard module. Until something is asked for by its import path, nothing
is imported here but what Python has loaded by itself.
"""

import os
import sys

from dtp_dist.errors import RangeError, in_one_line

TYPE_CHECKING = False  # of typing, which a file of that name in the working directory could hide here

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

VARIABLE = "PYTHONPATH"
PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__init__.py")
"""The file that is this package, wherever it lies."""

_PROGRAM = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("dtp_dist", sys.argv[2])
sys.modules["dtp_dist"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from {0} import {1}
{1}.main()
"""

_admitted: list[str] = []
"""The folders of the user's modules, first to last."""
_added: list[str] = []
"""Those of them that were not on the path before, and are at its end."""


def settle() -> None:
    """Take the working directory and the folder of the script off the path of this process."""
    sys.path[:] = _without(sys.path, _near())


def admit(folder: str | None = None) -> None:
    """Let modules be imported from a folder, then from the working directory, where no other place has them.

    They take the places of what was admitted before: each configuration has a folder of its own.
    """
    own = [] if folder is None else [_real(folder)]
    _admitted[:] = dict.fromkeys([*own, *_working_directory()])
    for entry in _added:
        if entry in sys.path:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(entry)]
    there = {_real(entry) for entry in sys.path}
    _added[:] = [entry for entry in _admitted if entry not in there]
    sys.path.extend(_added)


def imported(path: str, key: str) -> "Any":
    """Return what ``package.module:name`` names; the folders of the user's modules are searched last.

    Raises:
        RangeError: of ``key``: it can't be imported; says why, and where it was looked for.
    """
    import importlib

    module, _, name = path.partition(":")
    top = module.partition(".")[0]
    try:
        if top not in sys.modules:
            importlib.invalidate_caches()  # it may have been written a moment ago
        elif twin := _twin(top):
            raise ImportError(twin)
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        why = in_one_line(error)
        raise RangeError(key, f"{path!r} can't be imported ({why}){_advice(top, error)}") from error


def _twin(top: str) -> str:
    """Return in words that a module of the user's can't be had: this process has another one of its name."""
    loaded, found = _place(getattr(sys.modules[top], "__spec__", None)), _place(_spec(top))
    if not found or not loaded or found == loaded or not found.startswith(tuple(_folders())):
        return ""
    return f"this process has {loaded} as {top} already, so {found} needs another name, or another process"


def _advice(top: str, error: BaseException) -> str:
    """Return in words what to do about a module that was not found, or another one that was found instead."""
    found = _place(_spec(top)) or ("built into Python" if top in sys.builtin_module_names else "")
    for folder in _folders():
        mine = [folder + name for name in (top, f"{top}.py") if os.path.exists(folder + name)]
        if mine and found and not found.startswith(folder):
            return f"; the installed module ({found}) comes before {mine[0]}: give yours another name"
    if not isinstance(error, ModuleNotFoundError) or error.name != top:
        return ""
    places = " and in ".join(
        f"{folder}{'' if os.path.isdir(folder) else ' (not there)'}" for folder in _admitted
    )
    where = f"among the installed modules, then in {places}" if places else "among the installed modules"
    return f"; it is looked for {where}"


def _folders() -> list[str]:
    return [os.path.join(folder, "") for folder in _admitted]


def _spec(top: str) -> "ModuleSpec | None":
    """Return what an import of ``top`` finds on the path now."""
    from importlib.machinery import PathFinder

    try:
        return PathFinder.find_spec(top)
    except ImportError:
        return None


def _place(spec: "ModuleSpec | None") -> str:
    """Return the file of a module, the folder of a package without one, "" of what lies nowhere."""
    if spec is None:
        return ""
    place = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    return _real(place) if os.path.exists(place) else ""


def stage_path() -> list[str]:
    """Return this process's path for a stage: absolute, with what lies near at its end."""
    near = _near()
    there = {_real(entry) for entry in sys.path}
    return [*_without(sys.path, near), *(entry for entry in near if entry in there)]


def take(path: list[str]) -> None:
    """Take a ``stage_path`` in a process that has one of its own, as on another host: own entries first.

    An entry that both have goes where the given path has it.
    """
    sys.path[:] = [*_without(sys.path, path), *path]


def stage_environment() -> dict[str, str]:
    """Return the environment of a process to start, without the working directory in PYTHONPATH."""
    variables = dict(os.environ)
    entries = _without(variables.pop(VARIABLE, "").split(os.pathsep), _near())
    return variables | ({VARIABLE: os.pathsep.join(entries)} if entries else {})


def program_of(room: str, module: str) -> str:
    """Return what a process runs (``python -c``) that is to call ``main()`` of a module in a room.

    It is of this very package, wherever that lies, before the process's path is this one's; the process has
    ``PACKAGE`` as its second argument.
    """
    return _PROGRAM.format(room, module)


def package_root() -> list[str]:
    """Return [the folder that holds this package] where only a near one does, so that it has to be told."""
    root = os.path.dirname(os.path.dirname(PACKAGE))
    return [] if root in _without(sys.path, _near()) else [root]


def _near() -> list[str]:
    """Return the folder of the script, where there is one, and the working directory."""
    script = sys.argv[0] if sys.argv else ""
    folders = [os.path.dirname(os.path.realpath(script))] if os.path.isfile(script) else []
    return list(dict.fromkeys([*folders, *_working_directory()]))


def _working_directory() -> list[str]:
    try:
        return [os.path.realpath(os.getcwd())]
    except OSError:  # it was removed
        return []


def _without(path: list[str], left_out: list[str]) -> list[str]:
    """Return the entries of a path but for some folders and for empty ones, which mean the working one."""
    places = {_real(entry) for entry in left_out}
    return [entry for entry in path if entry and _real(entry) not in places]


def _real(entry: str) -> str:
    """Return where an entry of a path leads; a relative one stays if the working directory is gone."""
    try:
        return os.path.realpath(entry)
    except OSError:
        return entry
