"""What an event file holds, in TensorBoard's own messages, and how a file frames them.

``torch.utils.tensorboard`` and ``tensorboard.summary`` write the same, but import every plugin for it, file
systems and command-line flags: that takes longer than all else of monitoring. The messages alone are light.
"""

from __future__ import annotations

import io
import struct
from functools import cache
from typing import IO, Any

import torch
from PIL.Image import Image
from tensorboard.compat.proto.summary_pb2 import DataClass, HistogramProto, Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.text import metadata as text_metadata
from torch import Tensor

from dtp_dist.monitor.tensorboard.tags import Charts

BINS = 60
_POLYNOMIAL, _MASK_DELTA, _BITS = 0x82F63B78, 0xA282EAD8, 0xFFFFFFFF


def scalar(tag: str, value: float, description: str | None = None) -> Any:
    """Return one number; with what is said of its tag where that is first shown."""
    found = Summary.Value(tag=tag, simple_value=value)
    if description is not None:
        found.metadata.summary_description = description
        found.metadata.plugin_data.plugin_name = "scalars"
        found.metadata.data_class = DataClass.Value("DATA_CLASS_SCALAR")
    return Summary(value=[found])


def text(tag: str, words: str) -> Any:
    """Return a text, which may be Markdown."""
    return _strings(tag, [words.encode()], (1,), text_metadata.create_summary_metadata(None, None))


def layout(charts: Charts) -> Any:
    """Return the charts of the custom-scalars page."""
    categories = [
        Category(
            title=category,
            chart=[
                Chart(title=title, multiline=MultilineChartContent(tag=tags)) for title, tags in found.items()
            ],
        )
        for category, found in charts.items()
    ]
    written = Layout(category=categories).SerializeToString()
    tag, metadata = layout_metadata.CONFIG_SUMMARY_TAG, layout_metadata.create_summary_metadata()
    return _strings(tag, [written], (), metadata)


def picture(tag: str, image: Image, description: str) -> Any:
    """Return a picture; the description, Markdown, is what the page shows with it."""
    with io.BytesIO() as data:
        image.save(data, format="PNG")
        encoded = data.getvalue()
    parts = [str(image.width).encode(), str(image.height).encode(), encoded]
    return _strings(tag, parts, (len(parts),), image_metadata.create_summary_metadata(tag, description))


def _strings(tag: str, parts: list[bytes], shape: tuple[int, ...], metadata: Any) -> Any:
    dimensions = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape])
    tensor = TensorProto(dtype="DT_STRING", string_val=parts, tensor_shape=dimensions)
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def histogram(tag: str, values: Tensor) -> Any:
    """Return a histogram of ``BINS`` equal bins over values, which are finite, at least one, of any shape."""
    flat = values.detach().flatten().to(torch.float32)
    low, high = (float(each) for each in torch.aminmax(flat))
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(flat, BINS, low, high).tolist()
    found = HistogramProto(
        min=low,
        max=high,
        num=flat.numel(),
        sum=float(flat.sum()),
        sum_squares=float(flat.square().sum()),
        bucket_limit=torch.linspace(low, high, BINS + 1, dtype=torch.float64).tolist(),
        bucket=[0.0, *counts],
    )
    return Summary(value=[Summary.Value(tag=tag, histo=found)])


def write_record(file: IO[bytes], data: bytes) -> None:
    """Append a record: its length in 8 bytes, and itself, each followed by its masked CRC, little-endian."""
    length = struct.pack("<Q", len(data))
    file.write(b"".join((length, _checksum(length), data, _checksum(data))))


def _checksum(data: bytes) -> bytes:
    """Return the CRC-32C (Castagnoli) of data, turned by 15 bits and moved, as TFRecord files have it."""
    table, crc = _table(), _BITS
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= _BITS
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & _BITS)


@cache
def _table() -> list[int]:
    """Return the CRC of each byte."""
    found = list(range(256))
    for _ in range(8):
        found = [each >> 1 ^ (_POLYNOMIAL if each & 1 else 0) for each in found]
    return found
