"""A file of weights that a user names: its tensors by name, read one by one, whoever wrote it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dtp_dist.errors import ConfigError
from dtp_dist.storage.checkpoint import FOLDER, MANIFEST
from dtp_dist.storage.manifest import layer_file
from dtp_dist.text.foreign import is_regular, open_regular

SIDES = ("forward.", "inverse.")


class WeightsFile:
    """The tensors of a safetensors file.

    Attributes:
        of_layer: whether it is one layer's file of a checkpoint; else it is a plain state dict, such as that
            of a whole network that ``export`` writes.

    Raises:
        ConfigError: it is missing or no such file; starts with ``key``, which named it.
    """

    def __init__(self, key: str, path: Path) -> None:
        self.key, self.path = key, path
        with self._open() as file:
            self.names: list[str] = list(file.keys())
        self.of_layer = any(name.startswith(SIDES) for name in self.names)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            open_regular(self.path).close()
            with safe_open(self.path, framework="pt") as file:
                yield file
        except OSError as error:
            reason = error.strerror or str(error)
            raise self.error(f"can't be read ({reason}); name a file that is there") from None
        except SafetensorError as error:
            text = f"is no safetensors file ({error}); write one with safetensors.torch.save_file"
            raise self.error(text) from None

    def error(self, text: str) -> ConfigError:
        """Return the error that says ``text`` of this file."""
        return ConfigError(f"{self.key}: {self.path}: {text}")

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, in an allocation of its own."""
        with self._open() as file:
            value: Tensor = file.get_tensor(name)
        return value.clone()


def file_of_layer(key: str, path: Path, index: int) -> Path:
    """Return the file that layer ``index`` (1-based) is in: ``path`` itself, or one in a checkpoint's folder.

    Raises:
        ConfigError: the folder is none of a checkpoint.
    """
    if not path.is_dir():
        return path
    if is_regular(path / layer_file(1)):
        return path / layer_file(index)
    steps = sorted(each.parent for each in path.glob(f"{FOLDER}/step-*/{MANIFEST}"))
    if steps:
        raise ConfigError(f"{key}: {path}: is a run; write one of its checkpoints: {steps[-1]}")
    text = f"is a folder without {layer_file(1)}, so not a checkpoint"
    raise ConfigError(f"{key}: {path}: {text}; name a checkpoint's folder, or a safetensors file")


def layers_in(folder: Path) -> int:
    """Return the number of the last layer that a checkpoint's folder has a file of."""
    found = (re.fullmatch(r"layer-([0-9]{1,9})\.safetensors", name) for name in os.listdir(folder))
    return max((int(match[1]) for match in found if match), default=0)
