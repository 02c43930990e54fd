"""Small messages: one bit a unit where that is all that is read, with the same results, or bfloat16."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp_dist import load_config, train
from dtp_dist.errors import MessageError
from dtp_dist.runtime.stage import link_encoding
from dtp_dist.runtime.stage.link_encoding import LinkEncoding, pack, sent_as, unpack
from dtp_dist.runtime.stage.service import largest_message
from dtp_dist.schedule import Phase
from dtp_dist.storage.origin import compare
from dtp_dist.transport.messages import HEADER_BYTES, Bits, Message, MessageKind, Payload
from runs import small, small_config

BATCH, EVALUATED, WIDTHS = 41, 99, (33, 30, 31, 10)
SEEN = ("real", "sample", "sign", "sample")
STEPS, EXAMPLES = 7, 300  # of training, in each other split


def discrete(rule: str, *overrides: str):
    """A network of samples and signs; no message of it has a multiple of eight units."""
    raw = small(
        model={
            "input": [64],
            "defaults": {"activation": "sigmoid"},
            "layers": [
                {
                    "kind": "dense",
                    "units": units,
                    "input_transmission": sees,
                    "activation": "linear" if units == 10 else "sigmoid",
                }
                for units, sees in zip(WIDTHS, SEEN, strict=True)
            ],
        },
        rule={"name": rule},
        data={
            "name": "digits",
            "batch_size": BATCH,
            "eval_batch_size": EVALUATED,
            "valid_examples": EXAMPLES,
            "test_examples": EXAMPLES,
        },
        train={"epochs": 1, "max_steps": STEPS, "evaluate_passes": 2},
        monitor={"every": 100, "tensorboard": False, "trace_minibatches": 0},
    )
    return load_config(raw, overrides)


def run(tmp_path, rule: str, *overrides: str) -> dict[str, Any]:
    run_dir = tmp_path / str(len(list(tmp_path.iterdir())))
    return train(discrete(rule, *overrides, f"run_dir={run_dir}")).result


def outcome(result: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(result[name] for name in ("weights_sha256", "train_loss", "valid_error", "test_error"))


def bytes_of(examples: int, units: int, *, packed: bool) -> int:
    """An activation message of ``units`` float32 or packed units."""
    values = examples * units
    return HEADER_BYTES + 8 * examples + (-(-values // 8) if packed else 4 * values)


def bytes_of_run(*, evaluation_packed: bool, training_packed: bool) -> int:
    """Three links, two splits, two passes of each minibatch."""
    batches = [EVALUATED] * 3 + [EXAMPLES - 3 * EVALUATED]
    total = 0
    for units in WIDTHS[:-1]:
        total += 2 * 2 * sum(bytes_of(size, units, packed=evaluation_packed) for size in batches)
        total += STEPS * bytes_of(BATCH, units, packed=training_packed)
        total += STEPS * (HEADER_BYTES + 4 * BATCH * units)
    return total


# Packing


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from(list(Bits)),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**32),
)
def test_what_is_packed_comes_back(shape, bits, dtype, seed):
    ones = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    values = torch.where(ones, 1.0, -1.0 if bits is Bits.SIGN else 0.0).to(dtype)
    data, packed = pack(values), Payload(bits, values.shape)
    assert data.dtype == torch.uint8
    assert len(data) == packed.nbytes == (values.numel() + 7) // 8
    back = unpack(data, packed, dtype)
    assert back.dtype == dtype
    assert torch.equal(back, values)
    assert back.is_contiguous()


def test_the_lowest_bit_of_a_byte_is_the_first_unit():
    values = torch.tensor([[1.0, -1, -1, -1, -1], [-1, -1, 1, -1, 1]])
    assert pack(values).tolist() == [0b10000001, 0b10]


# Where bits are all that is read


@pytest.mark.parametrize("rule", ["dtp", "tp", "ldrl", "fw_dtp", "backprop"])
@pytest.mark.parametrize("phase", list(Phase))
def test_bits_travel_where_nothing_reads_the_numbers(rule, phase):
    config = discrete(rule)
    found = [sent_as(config, config.build_rule(), layer, phase) for layer in range(1, 6)]
    readers = {"dtp": {2, 3}, "tp": {2, 3}, "ldrl": {2, 3, 4}}.get(rule, set())
    if phase is Phase.EVALUATE or (phase is Phase.FORWARD and rule != "tp"):
        readers = set()
    kinds = {layer: "real" if layer in readers else SEEN[layer - 1] for layer in (2, 3, 4)}
    assert found == ["real", *kinds.values(), "real"]


def test_noise_on_its_input_keeps_a_layer_from_seeing_bits():
    config = discrete("backprop", "model.layers.2.noise=0.1")
    assert sent_as(config, config.build_rule(), 2, Phase.EVALUATE) == "real"


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["dtp", "backprop", "fw_dtp"])
def test_bits_give_the_same_weights_and_errors_as_numbers_and_fewer_bytes(tmp_path, monkeypatch, rule):
    one = run(tmp_path, rule)
    exact = run(tmp_path, rule, "parallel.stages=4")
    pipelined = run(tmp_path, rule, "parallel.stages=4", "parallel.in_flight=4")
    trains_packed = rule != "dtp"
    output_packed = STEPS * (bytes_of(BATCH, 31, packed=False) - bytes_of(BATCH, 31, packed=True))
    expected = bytes_of_run(evaluation_packed=True, training_packed=trains_packed)
    expected -= 0 if trains_packed else output_packed  # no inverse of the last layer reads its input
    assert exact["messages_bytes"] == pipelined["messages_bytes"] == expected
    monkeypatch.setattr(link_encoding, "BITS", {})
    numbers = run(tmp_path, rule, "parallel.stages=4", "parallel.in_flight=4")
    assert numbers["messages_bytes"] == bytes_of_run(evaluation_packed=False, training_packed=False)
    assert outcome(one) == outcome(exact)
    assert outcome(pipelined) == outcome(numbers) != outcome(one)


def test_other_bits_than_are_due_are_refused():
    config = discrete("backprop")
    due = LinkEncoding(config, config.build_rule(), range(3, 5), Phase.BOTH)
    labels = torch.zeros(2, dtype=torch.int64)
    place = (MessageKind.ACTIVATION, Phase.BOTH, 0, 2, 7)
    data = torch.tensor([0b101], dtype=torch.uint8)
    for packed in (Payload(Bits.SIGN, (2, 3)), Payload(Bits.BINARY, (2, 3)), None):
        payloads = (torch.ones(2, 3) if packed is None else data, labels)
        message = Message(*place, payloads, packed)
        if packed is not None and packed.encoding is Bits.SIGN:
            assert due.expand(message, payloads)[0].tolist() == [[1, -1, 1], [-1, -1, -1]]
        else:
            with pytest.raises(MessageError, match=r"minibatch 7: got .*expected bits of -1, \+1"):
                due.expand(message, payloads)


# bfloat16


def test_bfloat16_messages_take_half_and_round_alike_in_any_partition_of_the_same_cuts(tmp_path):
    exact = run(tmp_path, "tp", "parallel.stages=4")
    rounded = run(tmp_path, "tp", "parallel.stages=4", "parallel.message_dtype=bfloat16")
    numbers = STEPS * 2 * 2 * BATCH * (33 + 30) + STEPS * 2 * BATCH * 31
    assert exact["messages_bytes"] - rounded["messages_bytes"] == numbers
    assert exact["weights_sha256"] != rounded["weights_sha256"]
    one = [run(tmp_path, "tp", f"parallel.message_dtype={name}") for name in ("float32", "bfloat16")]
    assert outcome(one[0]) == outcome(one[1]) == outcome(exact)


@pytest.mark.parametrize("labels", [torch.tensor([2**40 + 1]), torch.tensor([[1 / 3, 2.0**30 + 64]])])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_numbers_are_rounded_and_widened_and_labels_left_alone(labels, dtype):
    config = discrete("tp", "parallel.message_dtype=bfloat16", f"train.dtype={dtype}")
    form = LinkEncoding(config, config.build_rule(), range(2, 3), Phase.BOTH)
    h = torch.tensor([[1.0, 1.00390625, -3.1415927]]).to(getattr(torch, dtype))
    sent = form.numbers(h), labels
    assert sent[0].dtype == torch.bfloat16
    message = Message(MessageKind.ACTIVATION, Phase.BOTH, 0, 1, 0, sent)
    back = form.expand(message, sent)
    assert back[0].dtype == h.dtype
    assert torch.equal(back[0], h.to(torch.bfloat16).to(h.dtype))
    assert back[1].dtype == labels.dtype
    assert torch.equal(back[1], labels)


def test_arithmetic_in_bfloat16_has_small_messages_already(tmp_path):
    runs = [
        run(tmp_path, "tp", "parallel.stages=2", "train.dtype=bfloat16", f"parallel.message_dtype={name}")
        for name in ("float32", "bfloat16")
    ]
    assert outcome(runs[0]) == outcome(runs[1])
    assert runs[0]["messages_bytes"] == runs[1]["messages_bytes"]


def test_a_run_that_goes_on_with_rounded_messages_is_told_that_its_bits_change():
    exact, rounded = small_config(), small_config("parallel.message_dtype=bfloat16")
    assert compare(exact, rounded) == ["parallel.message_dtype changed"]
    cut = small_config("parallel.message_dtype=bfloat16", "parallel.stages=2")
    assert compare(rounded, cut) == ["parallel.stages changed with bfloat16 messages"]
    assert compare(exact, small_config("parallel.stages=2")) == []


def test_the_largest_message_has_room_for_what_diagnostics_add():
    plain, measured = small_config(), small_config("monitor.alignment_every=5")
    extra = largest_message(measured) - largest_message(plain)
    assert extra == 1000 * 64 * 4
