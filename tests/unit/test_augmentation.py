"""Augmentation: torchvision's transforms, whose random numbers come from (seed, epoch, example) alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from dtp_dist import load_config
from dtp_dist.algorithm.randomness import derive_seed
from dtp_dist.config.batches import check_data, load_batches
from dtp_dist.data import Batches, Examples, Held
from dtp_dist.data.augmentation import Augmentation
from dtp_dist.errors import ConfigError, DataError
from own_data import pixels
from runs import small

CROP: dict[str, Any] = {"random_crop": {"size": [8, 9], "padding": 2, "padding_mode": "edge"}}
STEPS = [CROP, {"random_horizontal_flip": {"p": 0.5}}]


def images(count: int = 12) -> torch.Tensor:
    return torch.from_numpy(pixels((count, 3, 8, 9)))


def batches(steps: Any = STEPS, seed: int = 3, **more: Any) -> Batches:
    examples = Examples(Held(images()), torch.arange(12) % 3)
    return Batches(examples, [3, 8, 9], 5, seed=seed, augmentation=Augmentation(steps, seed), **more)


def transcribed(seed: int, epoch: int, example: int) -> torch.Tensor:
    """What torchvision itself makes of an example after one call of ``manual_seed``."""
    torch.manual_seed(derive_seed(seed, "augment", epoch, example))
    return v2.RandomHorizontalFlip(0.5)(
        v2.RandomCrop([8, 9], padding=2, padding_mode="edge")(images()[example])
    )


@pytest.mark.parametrize("epoch", [0, 4])
def test_each_example_is_what_torchvision_makes_of_it(epoch):
    all_of, order = batches(), torch.randperm(12, generator=_order(3, epoch))
    seen = torch.cat([all_of.stored(epoch, index) for index in (2, 0, 1)])
    for example, found in zip(order[[10, 11, *range(10)]].tolist(), seen, strict=True):
        assert torch.equal(found, transcribed(3, epoch, example))
    x, labels = all_of.minibatch(epoch, 1)
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.stack([transcribed(3, epoch, at) for at in order[5:10].tolist()]) / 255)
    assert torch.equal(labels, order[5:10] % 3)


def _order(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "order", epoch))


def test_epochs_seeds_and_examples_are_augmented_differently():
    plain = batches(shuffle=False)
    one = plain.stored(0, 0)
    assert not torch.equal(one, plain.stored(1, 0))
    assert not torch.equal(one, batches(seed=4, shuffle=False).stored(0, 0))
    alike = Examples(Held(images(1).repeat(12, 1, 1, 1)), torch.arange(12) % 3)
    same = Batches(alike, [3, 8, 9], 12, shuffle=False, augmentation=Augmentation(STEPS, 3)).stored(0, 0)
    assert len({each.numpy().tobytes() for each in same}) > 6


def test_global_streams_and_threads_stay_as_they_were():
    torch.manual_seed(5)
    random.seed(5)
    before = torch.get_rng_state(), random.getstate()
    torch.set_num_threads(2)
    try:
        batches().minibatch(0, 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_large_images_have_the_same_bits_with_any_number_of_threads():
    """Mean brightness is a sum that torch divides among its threads."""
    large = torch.from_numpy(pixels((1, 3, 300, 301)))
    jitter = Augmentation([{"color_jitter": {"contrast": [0.3, 0.9], "saturation": [0.3, 0.9]}}], 0)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(jitter(large, 0, torch.tensor([0])))
    torch.set_num_threads(1)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    "step",
    [
        "random_horizontal_flip",
        {"random_vertical_flip": None},
        {"random_apply": {"transforms": [{"gaussian_blur": {"kernel_size": 3}}], "p": 0.5}},
        {"random_choice": {"transforms": ["random_grayscale", {"random_rotation": {"degrees": 10}}]}},
        {"random_resized_crop": {"size": [8, 9], "interpolation": "nearest"}},
        {"auto_augment": {"policy": "cifar10"}},
        "trivial_augment_wide",
        {"rand_augment": {"num_ops": 1}},
        "random_erasing",
        {"random_affine": {"degrees": 5, "translate": [0.1, 0.1], "interpolation": "bilinear"}},
        "random_photometric_distort",
    ],
    ids=str,
)
def test_transforms_of_every_make_can_be_named(step):
    one, again = (batches([step]).stored(0, 0) for _ in range(2))
    assert torch.equal(one, again)
    assert (one.dtype, one.shape) == (torch.uint8, (5, 3, 8, 9))


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (
            "random_flip",
            r"1: 'random_flip' is no transform of torchvision.transforms.v2; did you mean ",
        ),
        ("qqqq", r"1: 'qqqq' is no transform .*; see torchvision's page"),
        ("mixup", r"1: mixup mixes several examples"),
        (3, r"1: 3 must be the name of a transform"),
        ({"random_crop": {"size": 8}, "random_erasing": None}, r"1: .* must be the name of a transform"),
        (
            {"random_crop": 8},
            r"1.random_crop: 8 must be a section of random_crop's arguments \(size, ",
        ),
        ({"random_crop": {"sizes": 8}}, r"1.random_crop: can't be made .*its arguments are size, padding, "),
        ({"random_crop": {"size": 5}}, r"1.random_crop makes uint8 \[3, 5, 5\] of uint8 \[3, 8, 9\], but"),
        ({"random_crop": {"size": 20}}, r"1.random_crop can't be done with uint8 .* example 0 \(ValueError"),
        ({"normalize": {"mean": [0.5], "std": [1]}}, r"1.normalize can't be done with .* \(TypeError"),
        ("to_pil_image", r"1.to_pil_image makes Image of uint8"),
        ({"auto_augment": {"policy": "mine"}}, r"1.auto_augment.policy: 'mine' .* imagenet, cifar10, svhn"),
        ({"random_apply": {"transforms": ["nope"]}}, r"1.random_apply.transforms.1: 'nope' is no transform"),
    ],
    ids=str,
)
def test_what_can_not_be_done_is_said_before_the_start(step, line):
    with pytest.raises(ConfigError, match=rf"^data.augment.{line}"):
        batches([step])


def test_the_training_split_alone_is_augmented():
    raw = small(model={"input": [1, 8, 8], "layers": small()["model"]["layers"]})
    raw["model"]["layers"].insert(0, {"kind": "flatten"})
    config = load_config(raw, ["data.augment=[random_vertical_flip]"])
    found = load_batches(config)
    assert [split for split, each in found.items() if each.takes_time] == ["train"]
    assert found["valid"].augmentation is found["test"].augmentation is None
    flat = load_config(small(), ["data.augment=[{random_crop: {size: 4}}]"])
    with pytest.raises(ConfigError, match=r"^data.augment.1.random_crop makes"):
        check_data(flat)


def test_an_example_that_only_some_epochs_can_not_take_is_named():
    step = Augmentation([{"random_apply": {"transforms": [{"center_crop": {"size": 4}}], "p": 0.5}}], 0)

    def all_epochs() -> None:
        for epoch in range(20):
            step(images(1), epoch, torch.tensor([0]))

    with pytest.raises(DataError, match=r"^data.augment.1.random_apply makes uint8 \[3, 4, 4\]"):
        all_epochs()
