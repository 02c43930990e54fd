"""Exported networks: a file of plain tensors, and the lines of Python that make a network of it again."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from dtp_dist.algorithm import plain
from dtp_dist.algorithm.layers import all_layers
from dtp_dist.algorithm.transmission import SAMPLE
from dtp_dist.config import Config, shapes_of
from dtp_dist.data import GIVEN
from dtp_dist.errors import ConfigError, StorageError
from dtp_dist.storage.export import Part, network_of, parts_of_run, state_dict_of
from dtp_dist.storage.files import write_file
from dtp_dist.storage.run_dir import open_run_dir

OWN = ("arrays", "table", GIVEN)
"""Data whose values are whatever a user stored."""


def export(
    run_dir: str | Path, target: str | Path, *, allow_code: bool = False, best: bool = False
) -> list[str]:
    """Write the forward network of a run's newest or best weights; return the lines of Python that load it.

    They need torch and safetensors alone, and a user's own module where a layer comes from one. Where a run
    with ``data.normalize`` is not at its end, the data set is read again for mean and deviation.

    Args:
        run_dir: the folder of a run.
        target: a file to write, ``NAME.safetensors``.
        allow_code: import the user modules that the run names.

    Raises:
        ConfigError: ``target`` is no name for a new safetensors file, or the run names code.
        StorageError: there is no whole checkpoint, it can't be exported, or ``target`` can't be written.
        DataError: the data set is needed and missing.
    """
    run_dir, target = Path(run_dir), Path(target)
    config = open_run_dir(run_dir, allow_code=allow_code)
    _check_target(target)
    manifest, parts = parts_of_run(run_dir, config, best=best)
    _refuse_unnamed_state(config, parts)
    data = safetensors.torch.save(dict(state_dict_of(network_of(parts))))
    write_file(target, data)
    first = f"# step {manifest.step} of {str(run_dir)!r} is in {str(target)!r}; these lines load it:"
    return [first, *loading_lines(parts, target, config.code_dir), *_usage(config)]


def _check_target(target: Path) -> None:
    """Check that a file can be written there, before a network is read for it.

    Raises:
        ConfigError: says what to name instead.
    """
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; name a file in it, {target / 'network.safetensors'}")
    if target.suffix.lower() != ".safetensors":
        name = target.with_suffix(".safetensors") if target.name else "network.safetensors"
        raise ConfigError(f"{target}: is no name for a safetensors file; write {name}")
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target}: exists; name another file or remove it")
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: there is no folder {target.parent}; make it, or name another")


def _usage(config: Config) -> list[str]:
    """Return comments that say how the network is used as the run evaluated it."""
    shape, loss = ", ".join(map(str, config.model.input)), config.build_loss()
    values = "pixels in [0, 1]"
    if config.data.name in OWN or ":" in config.data.name:
        values = "as in the data; bytes are divided by 255 (data.options.unit)"
    predicted, meaning = loss.predictions
    lines = [f"# {loss.called} = network(x)  # x: float32 [B, {shape}], {values}"]
    if loss.of_numbers is not None:
        lines.append(f"# {predicted}: {meaning}")
    if config.train.dtype != "float32":
        lines.append(f"# the run did its arithmetic in {config.train.dtype}; so does the network under")
        lines.append(f'# torch.autocast("cpu", torch.{config.train.dtype})')
    if any(each.mixes_examples for each in config.model.options):
        size = config.data.eval_batch_size
        lines.append("# it normalizes over the examples of a call, so what one gives depends on the others;")
        lines.append(f"# the run evaluated {size} at a time (data.eval_batch_size)")
    layers = all_layers(config.model.options)
    if any(getattr(each, "input_transmission", None) == SAMPLE for each in layers):
        passes = config.train.evaluate_passes
        lines.append(f"# each call draws new samples; their mean {predicted} errs less often")
        lines.append(f"# (train.evaluate_passes of the run: {passes})")
    return lines


def _refuse_unnamed_state(config: Config, parts: list[Part]) -> None:
    """Refuse a network whose user modules, made anew, would differ in what no state dict holds.

    Raises:
        StorageError: names the layer and the buffer.
    """
    shapes = shapes_of(config)
    rest = parts[len(parts) - len(shapes) + 1 :]
    for index, (options, part) in enumerate(zip(config.model.options, rest, strict=True), 1):
        if not part.sources:
            continue
        fresh, _ = options.maps(shapes[index - 1], torch.Generator(), inverse=False)
        for mine, other in zip(part.modules, fresh.torch_modules(), strict=True):
            name = _unnamed_state(mine, other)
            if name is not None:
                text = "is not persistent, so no exported file holds it, and it is not the same in each run"
                raise StorageError(f"layer {index}: the buffer {name!r} {text}; register it as persistent")


def _unnamed_state(mine: nn.Module, other: nn.Module) -> str | None:
    """Return the name of a buffer that no state dict holds and that differs between modules made alike."""
    held, theirs = mine.state_dict(), dict(other.named_buffers())
    differing = (
        name
        for name, buffer in mine.named_buffers()
        if name not in held and not torch.equal(buffer, theirs[name])
    )
    return next(differing, None)


def loading_lines(parts: list[Part], path: Path, code_dir: str | None = None) -> list[str]:
    """Return the lines of Python that make the network from its exported file; torch is all they need.

    Modules of the user's are also looked for in ``code_dir``.

    They can be pasted into an interpreter: nothing in a block is blank, and a blank line ends each.
    """
    modules = network_of(parts).modules()
    own = list(dict.fromkeys(type(module) for module in modules if type(module).__module__ == plain.__name__))
    imports = sorted({source[0] for part in parts for source in part.sources.values()})
    lines = ["import safetensors.torch", "import torch", "from torch import nn"]
    if imports and code_dir is not None:
        lines += ["import sys", f"sys.path.append({code_dir!r})"]
    lines += [f"import {module}" for module in imports]
    for each in own:
        lines += ["", *(line for line in inspect.getsource(each).splitlines() if line.strip())]
    lines += ["", "network = nn.Sequential("]
    for part in parts:
        lines += _indented(line for module in part.modules for line in _making(module, part.sources))
    lines += [")", f"_ = network.load_state_dict(safetensors.torch.load_file({str(path)!r}))"]
    return [*lines, "_ = network.eval()"]


def _making(module: nn.Module, sources: Mapping[nn.Module, tuple[str, str]]) -> list[str]:
    """Return the lines that make a module as an item of a list, the modules in it on lines of their own."""
    if module in sources:
        return [f"{sources[module][1]},"]
    if not isinstance(module, nn.Sequential | plain.Residual):
        return [f"{_expression(module)},"]
    where = "nn." if isinstance(module, nn.Sequential) else ""
    inside = [line for each in module.children() for line in _making(each, sources)]
    return [f"{where}{type(module).__name__}(", *_indented(inside), "),"]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _expression(module: nn.Module) -> str:
    """Return the expression that makes a module of ours; its ``extra_repr`` shows all arguments."""
    if isinstance(module, nn.Linear):
        bias = "" if module.bias is not None else ", bias=False"
        return f"nn.Linear({module.in_features}, {module.out_features}{bias})"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # older versions of torch do not know all it says
        return f"nn.{type(module).__name__}({module.num_features}, eps={module.eps}, affine={module.affine})"
    where = "nn." if type(module).__module__.startswith("torch.nn.") else ""
    return f"{where}{type(module).__name__}({module.extra_repr()})"
