"""What a tensor becomes on its way to another stage: bits where those are all that is needed, or bfloat16.

Every link carries the same, the one inside a process too, so that all runtimes end with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dtp_dist.algorithm.randomness import Randomness
from dtp_dist.algorithm.rules import Rule
from dtp_dist.algorithm.transmission import PURPOSE, REAL, SAMPLE, SIGN, transmitted
from dtp_dist.config import Config, label_bytes, shapes_of
from dtp_dist.errors import MessageError
from dtp_dist.phase import named
from dtp_dist.runtime.layout import DTYPES
from dtp_dist.schedule import Phase
from dtp_dist.transport.messages import HEADER_BYTES, Bits, Message, MessageKind, Payload

BITS = {SIGN: Bits.SIGN, SAMPLE: Bits.BINARY}
BYTE = 8  # bits


class LinkEncoding:
    """The form of one stage's messages in one phase, both those that it sends and those that it receives.

    Args:
        layers: the stage's, 1-based.
        repeat: which it is of several passes of the phase, from 0.
    """

    def __init__(self, config: Config, rule: Rule, layers: range, phase: Phase, repeat: int = 0) -> None:
        self._seed, self._named = config.seed, named(phase, repeat)
        self._numbers = DTYPES[config.train.dtype]
        self._narrow = torch.bfloat16 if config.parallel.message_dtype == "bfloat16" else self._numbers
        self._above = layers[-1] + 1
        self._sent = sent_as(config, rule, self._above, phase)
        self._received = sent_as(config, rule, layers[0], phase)

    @property
    def knows_input(self) -> bool:
        """Whether the stage gets its input as numbers, not as the bits that its first layer sees."""
        return self._received not in BITS

    def activation(self, h: Tensor, minibatch: int) -> tuple[Tensor, Payload | None]:
        """Return what is sent of the stage's output, and what it stands for if it is bits.

        The bits are those that the layer above would see: seeing them again changes nothing.
        """
        if self._sent not in BITS:
            return self.numbers(h), None
        random = Randomness(self._seed, self._above, minibatch, self._named)
        seen = transmitted(self._sent, h, lambda: random.generator(PURPOSE, 0, h.device))
        return pack(seen), Payload(BITS[self._sent], h.shape)

    def numbers(self, tensor: Tensor) -> Tensor:
        """Return what is sent of an activation's or a displacement's numbers; labels stay as they are."""
        return tensor.to(self._narrow)

    def expand(self, message: Message, payloads: Sequence[Tensor]) -> list[Tensor]:
        """Return what the stage works with: ``payloads`` are the message's, on the stage's device.

        Raises:
            MessageError: an activation has come as other bits than are due, or as none.
        """
        packed = message.packed
        due = BITS.get(self._received) if message.kind is MessageKind.ACTIVATION else None
        if (None if packed is None else packed.encoding) is not due:
            raise MessageError(f"{message}: got {message.described[0]}, expected {due or 'numbers'}")
        if message.kind is not MessageKind.ACTIVATION:
            return [each.to(self._numbers) for each in payloads]
        h, labels, *probes = payloads
        h = h.to(self._numbers) if packed is None else unpack(h, packed, self._numbers)
        return [h, labels, *(each.to(self._numbers) for each in probes)]


def sent_as(config: Config, rule: Rule, layer: int, phase: Phase) -> str:
    """Return the kind of transmission as which the stage below ``layer`` sends its output to it."""
    layers = config.model.options
    if not 1 < layer <= len(layers) or (phase is not Phase.EVALUATE and rule.reads_input(layer, phase)):
        return REAL
    return layers[layer - 1].transmission


def message_bytes(
    config: Config, rule: Rule, layer: int, phase: Phase, columns: int | None = None
) -> tuple[int, int]:
    """Return the bytes of a minibatch's activation from ``layer`` (1-based) up, and of its target.

    ``columns``: how many numbers an example's labels are, None for a class.
    """
    numbers = DTYPES[config.train.dtype]
    narrow = torch.bfloat16 if config.parallel.message_dtype == "bfloat16" else numbers
    examples, shapes = config.data.batch_size, shapes_of(config)
    shape = (examples, *shapes[layer])
    rows = rule.target_rows(shapes[-1][0])
    encoding = BITS.get(sent_as(config, rule, layer + 1, phase), narrow)
    up = HEADER_BYTES + Payload(encoding, shape).nbytes + examples * label_bytes(columns)
    down = Payload(narrow, (examples if rows is None else rows, *rule.signal_shape(layer, shapes))).nbytes
    probes = examples * probes_from(config, rule, layer, phase)
    if probes:
        up += Payload(narrow, (probes, *shapes[layer])).nbytes
        down += Payload(narrow, (probes, *shapes[-1])).nbytes
    return up, HEADER_BYTES + down


def probes_from(config: Config, rule: Rule, layer: int, phase: Phase) -> int:
    """Return how many layers up to ``layer`` (1-based) have a probe in a phase of training."""
    if not rule.probes or phase in (Phase.FORWARD, Phase.EVALUATE):
        return 0
    shapes, learned = shapes_of(config), rule.learned_inverses()
    each = enumerate(config.model.options[:layer], 1)
    return sum(number in learned and options.parameters(shapes[number - 1]) > 0 for number, options in each)


def pack(values: Tensor) -> Tensor:
    """Return one bit a unit, 1 where it is above 0: uint8 ``[ceil(n / 8)]``, lowest bit of a byte first."""
    units = values.numel()
    bits = torch.zeros(-(-units // BYTE) * BYTE, dtype=torch.uint8, device=values.device)
    bits[:units] = (values > 0).flatten()
    return (bits.view(-1, BYTE) << _places(values)).sum(1, dtype=torch.uint8)


def unpack(data: Tensor, packed: Payload, dtype: torch.dtype) -> Tensor:
    """Return the values whose bits are in ``data``, fresh and contiguous, in ``dtype``."""
    bits = (data.unsqueeze(1) >> _places(data)) & 1
    values = bits.flatten()[: torch.Size(packed.shape).numel()].to(dtype).view(packed.shape)
    return values.mul_(2).sub_(1) if packed.encoding is Bits.SIGN else values


def _places(like: Tensor) -> Tensor:
    return torch.arange(BYTE, dtype=torch.uint8, device=like.device)
