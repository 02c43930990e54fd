"""What is written for TensorBoard is, byte for byte, what the libraries themselves write."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from dtp_dist.monitor.tensorboard import hparams, summaries

theirs: Any = summary
CHARTS = {"learning": {"loss": ["learning/loss$", "learning/valid_loss$"]}, "layers": {"error": ["x/.*"]}}


@pytest.mark.parametrize("data", [b"", b"\0", b"123456789", bytes(range(256)) * 33])
def test_records_are_framed_as_tensorboard_frames_them(data: bytes) -> None:
    ours, others = io.BytesIO(), io.BytesIO()
    RecordWriter(others).write(data)
    summaries.write_record(ours, data)
    assert ours.getvalue() == others.getvalue()


def test_a_number() -> None:
    assert summaries.scalar("a/b", 0.25) == theirs.scalar("a/b", 0.25)


def test_a_number_with_what_is_said_of_its_tag() -> None:
    [value] = summaries.scalar("a", 2.0, "of *a*").value
    assert (value.simple_value, value.metadata.summary_description) == (2.0, "of *a*")
    assert value.metadata.plugin_data.plugin_name == "scalars"


def test_a_text_under_its_own_tag() -> None:
    expected = theirs.text("a/b", "grün")
    expected.value[0].tag = "a/b"
    assert summaries.text("a/b", "grün") == expected


def test_charts() -> None:
    described = {
        category: {title: ["Multiline", tags] for title, tags in found.items()}
        for category, found in CHARTS.items()
    }
    assert summaries.layout(CHARTS) == theirs.custom_scalars(described)


def test_a_histogram_counts_every_value() -> None:
    [value] = summaries.histogram("h", torch.tensor([[-1.0, 0.0], [0.5, 1.0]])).value
    found = value.histo
    assert (found.min, found.max, found.num, found.sum, found.sum_squares) == (-1.0, 1.0, 4.0, 0.5, 2.25)
    assert len(found.bucket) == len(found.bucket_limit) == summaries.BINS + 1
    assert (found.bucket[0], sum(found.bucket), found.bucket[-1]) == (0.0, 4.0, 1.0)
    assert (found.bucket_limit[0], found.bucket_limit[-1]) == (-1.0, 1.0)


def test_a_histogram_of_one_value_has_a_width() -> None:
    [value] = summaries.histogram("h", torch.full((3,), 2.0)).value
    assert (value.histo.min, value.histo.max, sum(value.histo.bucket)) == (1.5, 2.5, 3.0)


def test_a_picture_is_a_png_with_its_size() -> None:
    [value] = summaries.picture("p", Image.new("RGB", (3, 2), "#102030"), "what it shows").value
    width, height, data = value.tensor.string_val
    with Image.open(io.BytesIO(data)) as read:
        assert (int(width), int(height), read.size, read.format) == (3, 2, (3, 2), "PNG")
        assert read.getpixel((2, 1)) == (0x10, 0x20, 0x30)
    assert value.metadata == create_summary_metadata("p", "what it shows")


def test_the_names_of_the_page_of_settings_are_those_of_its_plugin() -> None:
    assert (hparams.PLUGIN, hparams.VERSION) == (metadata.PLUGIN_NAME, metadata.PLUGIN_DATA_VERSION)
    assert (hparams.EXPERIMENT, hparams.SESSION_START, hparams.SESSION_END) == (
        metadata.EXPERIMENT_TAG,
        metadata.SESSION_START_INFO_TAG,
        metadata.SESSION_END_INFO_TAG,
    )
