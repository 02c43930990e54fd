"""Data that nothing can be trained with: one line that names file and example, code 1, nothing left."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dtp_dist import load_config, train
from dtp_dist.errors import DataError
from own_data import write_arrays, write_folder, write_image, write_table
from runs import small

Made = dict[str, Any]
"""Keys of the section ``data`` that lead to the sick data."""


def images(root: Path, **options: Any) -> Made:
    """Ten images of three classes, 4 x 5 pixels, at ``root``."""
    write_folder(root, 4)
    return {"name": "image_folder", "root": str(root), "options": options}


def a_png_that_ends_early(root: Path) -> Made:
    made, path = images(root), root / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    return made


def a_jpeg_that_ends_early(root: Path) -> Made:
    made = images(root)
    path = write_image(root / "dog" / "2.jpg", (4, 5, 3))
    path.write_bytes(path.read_bytes()[:-30])
    return made


def text_that_is_called_png(root: Path) -> Made:
    made = images(root)
    (root / "cat" / "1.png").write_text("hello")
    return made


def an_empty_file(root: Path) -> Made:
    made = images(root)
    (root / "cat" / "1.png").write_bytes(b"")
    return made


def an_empty_class(root: Path) -> Made:
    made = images(root)
    (root / "fox").mkdir()
    return made


def a_gray_image_among_coloured_ones(root: Path) -> Made:
    made = images(root)
    write_image(root / "eel" / "3.png", (4, 5))
    return made


def an_image_of_another_size(root: Path) -> Made:
    made = images(root)
    write_image(root / "eel" / "3.png", (5, 5, 3))
    return made


def an_image_of_sixteen_bits(root: Path) -> Made:
    made = images(root, color="gray")
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(root / "eel" / "3.png")
    return made


def a_link_that_leads_nowhere(root: Path) -> Made:
    made = images(root)
    (root / "eel" / "9.png").symlink_to(root / "nothing.png")
    return made


def a_pipe_in_place_of_an_image(root: Path) -> Made:
    made = images(root)
    (root / "eel" / "9.png").unlink(missing_ok=True)
    os.mkfifo(root / "eel" / "9.png")
    return made


def an_image_that_would_fill_the_memory(root: Path) -> Made:
    made = images(root)
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (root / "eel" / "3.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk + bytes([0, 0, 1, 0]) + b"IDAT" + bytes(256)
    )
    return made


def a_class_that_training_has_not(root: Path) -> Made:
    write_folder(root / "train", 4)
    write_folder(root / "test", 2, ("cat", "elk"))
    return {"name": "image_folder", "root": str(root)}


def no_folders_of_classes(root: Path) -> Made:
    write_image(root / "0.png")
    return {"name": "image_folder", "root": str(root)}


def no_folder_at_all(root: Path) -> Made:
    return {"name": "image_folder", "root": str(root / "none")}


def arrays(root: Path, change: Callable[[dict[str, Any]], None], **options: Any) -> Made:
    """Arrays x [30, 3, 2] and y, three classes, in root/a.npz, after a change."""
    path = write_arrays(root / "a.npz")
    with np.load(path) as found:
        content = dict(found)
    change(content)
    np.savez(path, **content)
    return {"name": "arrays", "root": str(path), "options": options}


def a_nan_in_an_array(root: Path) -> Made:
    return arrays(root, lambda content: content["x"].__setitem__((7, 1, 1), np.nan))


def a_number_that_float32_can_not_hold(root: Path) -> Made:
    return arrays(root, lambda content: content["x"].__setitem__((7, 1, 1), 1e300))


def a_nan_in_a_file_that_is_read_by_the_row(root: Path) -> Made:
    root.mkdir()
    x = np.ones((30, 3), np.float32)
    x[11, 2] = np.nan
    np.save(root / "x.npy", x)
    np.save(root / "y.npy", np.arange(30) % 3)
    return {"name": "arrays", "root": str(root), "cache": "none"}


def labels_with_holes(root: Path) -> Made:
    return arrays(root, lambda content: content.update(y=np.array([0, 1, 3] * 10)))


def a_label_below_zero(root: Path) -> Made:
    return arrays(root, lambda content: content["y"].__setitem__(5, -1))


def a_label_beyond_the_classes(root: Path) -> Made:
    return arrays(root, lambda content: content["y"].__setitem__(5, 7), classes=3)


def one_class_alone(root: Path) -> Made:
    return arrays(root, lambda content: content.update(y=np.zeros(30, int)))


def fewer_targets_than_examples(root: Path) -> Made:
    return arrays(root, lambda content: content.update(y=content["y"][:29]))


def no_targets(root: Path) -> Made:
    return arrays(root, lambda content: content.pop("y"))


def a_nan_among_the_targets(root: Path) -> Made:
    return arrays(root, lambda content: content.update(y=np.append(np.ones(29), np.nan)))


def words_in_place_of_examples(root: Path) -> Made:
    return arrays(root, lambda content: content.update(x=np.array(["a"] * 30)))


def examples_of_another_shape(root: Path) -> Made:
    return arrays(root, lambda content: content.update(x_test=np.ones((3, 4)), y_test=np.arange(3)))


def an_npz_that_ends_early(root: Path) -> Made:
    path = write_arrays(root / "a.npz")
    path.write_bytes(path.read_bytes()[:-100])
    return {"name": "arrays", "root": str(path)}


def an_npz_whose_bytes_changed(root: Path) -> Made:
    path = write_arrays(root / "a.npz")
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    return {"name": "arrays", "root": str(path)}


def an_npy_that_ends_early(root: Path) -> Made:
    root.mkdir()
    np.save(root / "x.npy", np.ones((30, 3)))
    np.save(root / "y.npy", np.arange(30) % 3)
    (root / "x.npy").write_bytes((root / "x.npy").read_bytes()[:-1])
    return {"name": "arrays", "root": str(root)}


def python_objects_in_an_array(root: Path) -> Made:
    root.mkdir()
    np.save(root / "x.npy", np.array([{}] * 30, dtype=object), allow_pickle=True)
    np.save(root / "y.npy", np.arange(30) % 3)
    return {"name": "arrays", "root": str(root)}


def table(root: Path, old: str = "", new: str = "") -> Made:
    path = write_table(root / "t.csv")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return {"name": "table", "root": str(path), "options": {"y": "kind"}}


def a_value_that_is_missing(root: Path) -> Made:
    return table(root, "\n7,7.0,y", "\n7,,y")


def a_word_among_numbers(root: Path) -> Made:
    return table(root, "\n7,7.0,y", "\n7,seven,y")


def a_target_that_is_missing(root: Path) -> Made:
    return table(root, "\n7,7.0,y", "\n7,7.0,")


def a_row_with_a_value_too_many(root: Path) -> Made:
    return table(root, "\n7,7.0,y", "\n7,7.0,y,9")


def an_empty_table(root: Path) -> Made:
    made = table(root)
    Path(made["root"]).write_text("")
    return made


def a_table_with_a_head_alone(root: Path) -> Made:
    made = table(root)
    Path(made["root"]).write_text("a,b,kind\n")
    return made


def two_columns_of_one_name(root: Path) -> Made:
    return table(root, "a,b,kind", "a,a,kind")


def a_parquet_that_ends_early(root: Path) -> Made:
    from pyarrow import csv, parquet

    path = root / "t.parquet"
    parquet.write_table(csv.read_csv(write_table(root / "t.csv")), path)
    path.write_bytes(path.read_bytes()[:-20])
    return {"name": "table", "root": str(path), "options": {"y": "kind"}}


SICK = """
class Sick:
    def __init__(self, kind): self.kind = kind
    def __len__(self): return 30
    def __getitem__(self, index):
        if index != 9: return [float(index), 1.0], index % 3
        if self.kind == "raises": raise KeyError("lost\\nforever")
        return {"three": (1, 2, 3), "shape": ([1.0], 0), "nan": ([1.0, float("nan")], 0),
                "none": (None, 0), "kind": ([1.0, 2.0], [1, 2])}[self.kind]

def load(root, kind):
    if kind == "list": return [1, 2]
    if kind == "fails": raise RuntimeError("no such\\nserver")
    return {"train": Sick(kind)}
"""


def function(root: Path, kind: str) -> Made:
    root.mkdir(exist_ok=True)
    (root / "sick_data.py").write_text(SICK)
    return {"name": "sick_data:load", "root": str(root), "options": {"kind": kind}}


FUNCTION = "data.name=sick_data:load, train, index 9: "
KINDS: list[tuple[Callable[[Path], Made], str]] = [
    (a_png_that_ends_early, "ROOT/dog/2.png, index 6: is no whole image (image file is truncated"),
    (a_jpeg_that_ends_early, "ROOT/dog/2.jpg, index 6: is no whole image (image file is truncated"),
    (text_that_is_called_png, "ROOT/cat/1.png, index 1: is no whole image (it is of no format"),
    (an_empty_file, "ROOT/cat/1.png: is empty; mend it or remove it"),
    (an_empty_class, "ROOT/fox: holds no image (.jpg .jpeg"),
    (a_gray_image_among_coloured_ones, "ROOT/eel/3.png, index 11: is gray, but the first image, cat/0.png,"),
    (an_image_of_another_size, "ROOT/eel/3.png, index 11: has 5 x 5 pixels, but the first image, cat/0.png"),
    (an_image_of_sixteen_bits, "ROOT/eel/3.png, index 11: has pixels of Pillow's mode 'I;16'"),
    (a_link_that_leads_nowhere, "ROOT/eel/9.png: can't be read (No such file or directory)"),
    (a_pipe_in_place_of_an_image, "ROOT/eel/9.png"),
    (an_image_that_would_fill_the_memory, "ROOT/eel/3.png, index 11: is no whole image (Image size (36"),
    (a_class_that_training_has_not, "ROOT/test/elk: is of no class of ROOT/train; move it or remove it"),
    (no_folders_of_classes, "ROOT: holds no folders of classes; it must hold train/CLASS/*.png"),
    (no_folder_at_all, "data.root: ROOT/none is no folder; it must hold train/CLASS/*.png"),
    (a_nan_in_an_array, "ROOT/a.npz, array x, index 7: its example holds NaN"),
    (a_number_that_float32_can_not_hold, "ROOT/a.npz, array x, index 7: its example holds 1e+300, which is"),
    (a_nan_in_a_file_that_is_read_by_the_row, "ROOT/x.npy, index 11: its example holds NaN"),
    (labels_with_holes, "ROOT/a.npz, array y: no example has the label 2, but one at index 2 has 3; label"),
    (a_label_below_zero, "ROOT/a.npz, array y, index 5: the target -1 is no label of a class; label them"),
    (a_label_beyond_the_classes, "ROOT/a.npz, array y, index 5: the target 7 is no class; those are 0 to 2"),
    (one_class_alone, "ROOT/a.npz, array y: all targets are 0; there must be two classes at least"),
    (fewer_targets_than_examples, "ROOT/a.npz, array y: has the shape [29], but x has [30, 3, 2]"),
    (no_targets, "ROOT/a.npz, array x: there is no array y that goes with it"),
    (a_nan_among_the_targets, "ROOT/a.npz, array y, index 29: its target holds NaN"),
    (words_in_place_of_examples, "ROOT/a.npz, array x: holds <U1, which are no real numbers"),
    (
        examples_of_another_shape,
        "ROOT/a.npz, array x_test: has examples of float64 [4], but ROOT/a.npz",
    ),
    (an_npz_that_ends_early, "ROOT/a.npz: is no whole NumPy file (File is not a zip file)"),
    (an_npz_whose_bytes_changed, "ROOT/a.npz: is no whole NumPy file (Bad CRC-32"),
    (
        an_npy_that_ends_early,
        "ROOT/x.npy: is no whole NumPy file (it has 847 bytes where",
    ),
    (python_objects_in_an_array, "ROOT/x.npy: is no whole NumPy file (it holds Python objects or records"),
    (a_value_that_is_missing, "ROOT/t.csv, index 7: column 'b' is empty; fill it or leave the row out"),
    (a_word_among_numbers, "ROOT/t.csv, index 7: column 'b' holds 'seven', which is no number; name the"),
    (a_target_that_is_missing, "ROOT/t.csv, index 7: column 'kind' is empty"),
    (a_row_with_a_value_too_many, "ROOT/t.csv: is no whole table (CSV parse error: "),
    (an_empty_table, "ROOT/t.csv: is no whole table (Empty CSV file"),
    (a_table_with_a_head_alone, "ROOT/t.csv: has no row"),
    (two_columns_of_one_name, "ROOT/t.csv: two columns are called 'a'; rename one"),
    (a_parquet_that_ends_early, "ROOT/t.parquet: is no whole table ("),
    (lambda root: function(root, "raises"), FUNCTION + "raised KeyError: "),
    (lambda root: function(root, "three"), FUNCTION + "gives 3 values; each example must be (x, y)"),
    (lambda root: function(root, "shape"), FUNCTION + "is torch.float32 [1], but the first is torch.float32"),
    (lambda root: function(root, "nan"), FUNCTION + "its example holds NaN"),
    (lambda root: function(root, "none"), FUNCTION),
    (
        lambda root: function(root, "kind"),
        "data.name=sick_data:load, train, index 9: its target has",
    ),
    (lambda root: function(root, "list"), "data.name=sick_data:load: returns list; it must be a mapping"),
    (lambda root: function(root, "fails"), "data.name: sick_data:load raised RuntimeError: no such server"),
]


def model(shape: list[int]) -> Made:
    layers = [{"kind": "flatten"}] * (len(shape) > 1) + [
        {"kind": "dense", "units": 8, "activation": "tanh"},
        {"kind": "dense", "units": 3, "activation": "linear"},
    ]
    return {"input": shape, "layers": layers}


SHAPES = {"image_folder": [3, 4, 5], "arrays": [3, 2], "table": [2]}


@pytest.mark.parametrize(("make", "line"), KINDS, ids=[line for _, line in KINDS])
def test_bad_data_are_named_in_one_line_and_nothing_is_left(tmp_path, monkeypatch, make, line):
    monkeypatch.syspath_prepend(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "here"
    made = {"batch_size": 4, **make(root)}
    shape = SHAPES.get(made["name"], [2])
    shape = {"a_nan_in_a_file_that_is_read_by_the_row": [3], "an_image_of_sixteen_bits": [1, 4, 5]}.get(
        getattr(make, "__name__", ""), shape
    )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        train(load_config(small(model=model(shape), data=made)))
    said = str(caught.value)
    assert said.startswith(line.replace("ROOT", str(root))), said
    assert "\n" not in said
    assert caught.value.exit_code == 1
    after = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    assert after == [path for path in before if "__pycache__" not in path.parts]


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    """Tests may run as root, who may read everything: the system's answer is given in its place."""
    made = images(tmp_path / "here")
    ours, forbidden = os.open, str(tmp_path / "here" / "dog" / "1.png")

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if os.fspath(path) == forbidden:
            raise PermissionError(13, "Permission denied", forbidden)
        return ours(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        DataError, match=re.escape(f"{forbidden}, index 5: can't be read (Permission denied)")
    ):
        train(load_config(small(model=model([3, 4, 5]), data=made), [f"run_dir={tmp_path / 'run'}"]))
    assert not (tmp_path / "run").exists()
