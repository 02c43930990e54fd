"""No pickle is loaded from the network or from the disk: who loads one could run anybody's code."""

from __future__ import annotations

import ast
import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
import zmq

import dtp_dist
from dtp_dist.config.source import ConfigLoader
from dtp_dist.errors import DtpDistError, MessageError, StorageError
from dtp_dist.schedule import Phase
from dtp_dist.storage.checkpoint import (
    FileEntry,
    Manifest,
    complete_checkpoint,
    layer_file,
    new_checkpoint,
    newest_checkpoint,
    read_layer,
)
from dtp_dist.storage.manifest import Origin
from dtp_dist.text.foreign import PlainLoader, parse_yaml
from dtp_dist.training.totals import Totals
from dtp_dist.transport.messages import LinkIdentity, MessageKind
from dtp_dist.transport.wire import decode
from dtp_dist.transport.zeromq import ZmqReceiver

ORIGIN = Origin(seed=0, config_sha256="0" * 64, layers=1)
PACKAGE = Path(dtp_dist.__file__).parent
LOADERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "multiprocessing"}
CALLS = {"torch.load", "torch.save", "np.load", "np.save", "numpy.load", "yaml.load", "yaml.unsafe_load"}
ALLOWED = {
    # Between a driver and the processes that it started itself, over socket pairs that they inherit: those
    # have no name and no port, so nobody else can write to them.
    ("profiling/links.py", "multiprocessing"),
    ("runtime/local/control_line.py", "multiprocessing"),
    ("runtime/local/process.py", "multiprocessing"),
    # Between a stage and the processes that read for it, over pipes that they inherit.
    ("data/loaders.py", "multiprocessing"),
    # CIFAR's files are pickles; the names in them stand for functions of ours, or are refused, as a test of
    # those files holds.
    ("data/sets/cifar_files.py", "pickle"),
    # Read by loaders of YAML's safe types alone, as a test below holds.
    ("text/foreign.py", "yaml.load"),
}


def loads_pickles(path: Path) -> Iterator[str]:
    """Yield what in a file could load a pickle: modules it imports, functions and options it names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from {alias.name.split(".")[0] for alias in node.names} & LOADERS
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from ({str(node.module).split(".")[0]} & LOADERS) | (names & CALLS)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in CALLS:
            yield ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            yield str(node.arg)


@pytest.mark.slow
def test_nothing_in_the_package_loads_pickles():
    """But for Ray's own calls, and CIFAR, which torchvision unpickles once its checksum is right."""
    paths = sorted(PACKAGE.rglob("*.py"))
    found = {(str(path.relative_to(PACKAGE)), what) for path in paths for what in loads_pickles(path)}
    assert found == ALLOWED


@pytest.mark.parametrize("loader", [PlainLoader, ConfigLoader])
@pytest.mark.parametrize("tag", ["python/name:os.system", "python/object/apply:os.getcwd", "python/tuple"])
def test_yaml_is_read_by_loaders_of_safe_types_alone(loader, tag):
    assert issubclass(loader, yaml.constructor.SafeConstructor)
    with pytest.raises(ValueError, match="could not determine a constructor"):
        parse_yaml(f"a: !!{tag} []", loader)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from torch import load",
        "torch.load(x)",
        "np.load(x, allow_pickle=True)",
        "import dill",
    ],
)
def test_what_would_load_a_pickle_is_found(tmp_path, line):
    path = tmp_path / "module.py"
    path.write_text(f"def f(x):\n    {line}\n")
    assert list(loads_pickles(path))


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "unpickled"
    assert not (tmp_path / "unpickled").exists()


@pytest.fixture
def bomb(mark: Path) -> bytes:
    return pickle.dumps(Bomb(mark))


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_a_layer_that_is_a_pickle_is_refused_though_the_manifest_names_it(tmp_path, bomb):
    folder = new_checkpoint(tmp_path, 30)
    (folder / layer_file(1)).write_bytes(bomb)
    digest = hashlib.sha256(bomb).hexdigest()
    entry = FileEntry(layer_file(1), len(bomb), digest)
    complete_checkpoint(folder, Manifest(30, 0, Phase.BOTH, *ORIGIN[:2], (entry,), Totals().state()), 2)
    assert newest_checkpoint(tmp_path, ORIGIN)[0] == folder
    with pytest.raises(StorageError, match=r"layer-001.safetensors: is damaged \(.*\)$"):
        read_layer(folder, 1)


def test_a_manifest_that_is_a_pickle_is_refused(tmp_path, bomb):
    folder = new_checkpoint(tmp_path, 30)
    (folder / "manifest.json").write_bytes(bomb)
    with pytest.raises(StorageError, match=r"manifest.json: is not a manifest"):
        newest_checkpoint(tmp_path, ORIGIN)


LINK = LinkIdentity(bytes(16), 0, MessageKind.ACTIVATION, sender=0, layer=4)


@pytest.mark.parametrize("number", [0, 1])
def test_a_message_that_is_a_pickle_is_refused(bomb, number):
    with pytest.raises(MessageError):
        decode([bomb], LINK, number, max_bytes=1 << 20)


def test_a_pickle_in_place_of_a_first_message_is_refused_by_the_receiver(tmp_path, bomb):
    context = zmq.Context(io_threads=1)
    limits = {"timeout": 30.0, "stopped": lambda: False, "high_water": 2, "max_bytes": 1 << 20}
    receiver = ZmqReceiver(context, f"ipc://{tmp_path}/s", LINK, **limits)
    with context.socket(zmq.PUSH) as peer:
        peer.connect(receiver.endpoint)
        peer.send(bomb)
        with pytest.raises(DtpDistError, match="activation link"):
            receiver.accept()
    receiver.close()
    context.term()
