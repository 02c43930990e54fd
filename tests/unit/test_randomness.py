"""Random numbers: what a number is depends on its name alone, and never changes."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from enum import IntEnum, StrEnum

import pytest
import torch
from closeness import assert_near

from dtp_dist.algorithm.randomness import Randomness, derive_seed
from dtp_dist.phase import Phase
from networks import SEED, build, dense, exact_step, minibatch, parameters, rule, same_bits, stages, values

NAME = Randomness(seed=7, layer=3, minibatch=41, phase="both")

# Runs that were saved must go on with the same numbers: these never change.
PINNED = {
    (0,): 16965118934318357350,
    (1, "a"): 4870198819350623995,
    ("1", "a"): 8631301833668076782,
    (7, 3, 41, "both", "noise", 0): 3940908507057205097,
    (7, "weights", 3): 5271539080860477087,
}


@pytest.mark.parametrize(("parts", "expected"), PINNED.items())
def test_seeds_are_pinned(parts, expected):
    assert derive_seed(*parts) == expected


class Word(StrEnum):
    """Stages are told phases, which are no plain words."""

    BOTH = "both"

    def __str__(self) -> str:
        return "another text"


class Number(IntEnum):
    SEVEN = 7


class Text(str):
    """A word of another type, such as numpy's."""


def test_what_types_are_called_does_not_count():
    for word in (Phase.BOTH, Word.BOTH, Text("both")):
        assert derive_seed(7, 3, 41, word, "noise", 0) == PINNED[7, 3, 41, "both", "noise", 0]
    assert derive_seed(Number.SEVEN, "weights", 3) == PINNED[7, "weights", 3]


@pytest.mark.parametrize("part", [None, 1.0, b"both", torch.tensor(1)])
def test_a_part_of_another_kind_is_refused(part):
    with pytest.raises(TypeError, match="whole numbers and words"):
        derive_seed(7, part)


def test_a_seed_is_the_first_64_bits_of_a_sha256():
    digest = hashlib.sha256(b"int:7\x1fint:3\x1fint:41\x1fstr:both\x1fstr:noise\x1fint:2").digest()
    assert NAME.key("noise", 2) == sum(byte << 8 * place for place, byte in enumerate(digest[:8]))


def test_pinned_noise():
    found = NAME.normal(torch.empty(3), 1.0, "noise")
    assert_near(found, torch.tensor([-1.0386925, 0.13902195, -0.63588923]), 16)


@pytest.mark.slow
def test_seeds_do_not_depend_on_pythons_hash():
    code = (
        "from dtp_dist.algorithm.randomness import Randomness, derive_seed;"
        "print(hash('noise'), derive_seed(5, 'noise'), Randomness(1, 2, 3, 'both').key('noise', 4))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert found[0][0] != found[1][0]
    assert (
        found[0][1:]
        == found[1][1:]
        == [str(derive_seed(5, "noise")), str(Randomness(1, 2, 3, "both").key("noise", 4))]
    )


def test_keys_differ_in_every_component():
    names = [NAME, *(replace(NAME, **{part: 8}) for part in ("seed", "layer", "minibatch"))]
    names.append(replace(NAME, phase="inverse"))
    keys = {name.key(purpose, i) for name in names for purpose in ("noise", "forward") for i in (0, 1)}
    assert len(keys) == len(names) * 4


def test_neighbouring_parts_do_not_run_together():
    seeds = {
        derive_seed(1, 23),
        derive_seed(12, 3),
        derive_seed(123),
        derive_seed("1", 23),
        derive_seed("1 23"),
    }
    assert len(seeds) == 5


def test_seeds_differ_where_a_generator_looks():
    """torch's CPU generator uses the lower 32 bits of a seed alone."""
    count = 2000
    lower = {derive_seed(0, 1, k, "both", "noise", 0) & 0xFFFFFFFF for k in range(count)}
    assert len(lower) == count


def test_noise_is_normal_with_the_given_deviation_and_the_same_every_time():
    like = torch.empty(400, 300, dtype=torch.float64)
    noise = NAME.normal(like, 0.3, "noise")
    assert noise.shape == like.shape
    assert noise.dtype == like.dtype
    assert torch.equal(noise, NAME.normal(like, 0.3, "noise"))
    error = 1 / like.numel() ** 0.5
    assert abs(noise.mean().item()) < 5 * 0.3 * error
    assert noise.std().item() == pytest.approx(0.3, rel=5 * error)
    assert (noise.abs() < 0.3).double().mean().item() == pytest.approx(0.6827, abs=5 * error)
    assert torch.equal(NAME.normal(like, 0.0, "noise"), torch.zeros_like(like))
    assert_near(NAME.normal(like, 0.6, "noise"), 2 * noise, 16)


def test_noise_of_other_names_is_uncorrelated():
    like = torch.empty(200, 200)
    noise = NAME.normal(like, 1.0, "noise")
    others = (
        NAME.normal(like, 1.0, "noise", 1),
        NAME.normal(like, 1.0, "other"),
        replace(NAME, layer=4).normal(like, 1.0, "noise"),
        replace(NAME, minibatch=42).normal(like, 1.0, "noise"),
    )
    for other in others:
        assert abs((noise * other).mean().item()) < 5 / like.numel() ** 0.5


def test_global_stream_is_neither_used_nor_moved():
    torch.manual_seed(1)
    first = NAME.normal(torch.empty(9), 1.0, "noise")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, NAME.normal(torch.empty(9), 1.0, "noise"))
    assert torch.equal(state, torch.get_rng_state())


def test_initial_weights_and_training_come_from_the_seed_alone():
    found = []
    for entropy in (1, 2):
        torch.manual_seed(entropy)
        layers = build(dense(), rule("dtp"), scrambled=False)
        parts = stages(layers, rule("dtp"))
        for k in range(2):
            exact_step(parts, k, *minibatch(k))
        found.append(values(layers))
    assert same_bits(*found)
    other = build(dense(), rule("dtp"), scrambled=False, seed=SEED + 1)
    assert not torch.equal(parameters(other)[0], parameters(build(dense(), rule("dtp"), scrambled=False))[0])


def test_initial_forward_weights_do_not_depend_on_whether_there_is_an_inverse():
    with_inverse = build(dense(), rule("dtp"), scrambled=False)
    without = build(dense(), rule("backprop"), scrambled=False)
    for one, other in zip(with_inverse, without, strict=True):
        assert same_bits(one.f.parameters(), other.f.parameters())
