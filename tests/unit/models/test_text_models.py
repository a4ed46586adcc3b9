"""TextCNN, TextGRU and TextTransformer."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_inputs import TEXTS, small, texts
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from renate_stages import errors
from renate_stages.export.program import trace

LENGTHS = [7, 1, 3, 0, 5, 7]


def padded(batch: dict[str, Tensor], more: int) -> dict[str, Tensor]:
    return {name: F.pad(each, (0, more)) for name, each in batch.items()}


@pytest.mark.parametrize("more", [1, 4, 13])
@pytest.mark.parametrize("name", TEXTS)
def test_padding_does_not_change_outputs_or_gradients(name, more):
    model, batch = small(name).double(), texts(LENGTHS)
    found = []
    for inputs in (batch, padded(batch, more)):
        model.zero_grad()
        outputs = model(inputs)
        outputs.square().sum().backward()
        found.append([outputs, *(each.grad for each in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", TEXTS)
def test_text_has_the_same_output_alone_and_in_a_batch(name):
    model, batch = small(name).double(), texts(LENGTHS)
    together = model(batch)
    for row, length in enumerate(LENGTHS):
        alone = {key: each[row : row + 1, :length] for key, each in batch.items()}
        torch.testing.assert_close(model(alone)[0], together[row], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", TEXTS)
def test_empty_texts_have_features_0_and_finite_gradients(name):
    model = small(name).train()
    for batch in (texts([0, 0]), texts([0, 0], width=4), texts([0, 3])):
        model.zero_grad()
        outputs = model(batch)
        assert torch.equal(outputs[0], model.head.bias)
        outputs.square().sum().backward()
        assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())


@pytest.mark.parametrize("name", TEXTS)
def test_ids_under_the_mask_have_no_effect(name):
    model, batch = small(name), texts([7, 3])
    ids = torch.where(batch["attention_mask"] == 1, batch["input_ids"], 9)
    assert torch.equal(model({**batch, "input_ids": ids}), model(batch))
    other = {**batch, "input_ids": batch["input_ids"].roll(1, dims=1) * batch["attention_mask"]}
    assert not torch.allclose(model(other), model(batch)), "the order of tokens has an effect"


def embedded(model: nn.Module, batch: dict[str, Tensor], row: int, length: int) -> Tensor:
    return model.features.embedding.weight[batch["input_ids"][row, :length]]  # (T, E)


def logits(model: nn.Module, features: list[Tensor]) -> Tensor:
    return torch.stack(features) @ model.head.weight.T + model.head.bias


def test_cnn_equals_a_loop_over_tokens_and_filters():
    model, batch, lengths = small("TextCNN"), texts([7, 1, 3]), [7, 1, 3]
    features = []
    for row, length in enumerate(lengths):
        vectors, pooled = embedded(model, batch, row, length), []
        for size, layers in zip((1, 2, 3), model.features.convolutions, strict=True):
            weight, bias = layers[1].weight, layers[1].bias  # (filters, E, size)
            best = torch.zeros(4)
            for centre in range(length):
                value = bias.clone()
                for k in range(size):
                    place = centre - (size - 1) // 2 + k
                    if 0 <= place < length:
                        value += weight[:, :, k] @ vectors[place]
                best = torch.maximum(best, value)
            pooled.append(best)
        features.append(torch.cat(pooled))
    torch.testing.assert_close(model(batch), logits(model, features))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_gru_equals_packed_sequences_in_each_direction(bidirectional):
    model = small("TextGRU", bidirectional=bidirectional)
    lengths, batch = [7, 1, 3, 5], texts([7, 1, 3, 5])
    states = []
    for number, direction in enumerate(model.features.directions):
        ids = batch["input_ids"].clone()
        for row, length in enumerate(lengths):
            if number:
                ids[row, :length] = ids[row, :length].flip(0)
        vectors = model.features.embedding.weight[ids]
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)  # type: ignore[arg-type]
        states.append(direction(packed)[1][-1])  # the last layer's state after the last token
    assert len(states) == 1 + bidirectional
    expected = torch.cat(states, dim=1) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(batch), expected)


def test_transformer_equals_torchs_encoder():
    model, lengths, batch = small("TextTransformer"), [7, 1, 3], texts([7, 1, 3])
    layers = []
    for block in model.features.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 9, 0.0, F.gelu, batch_first=True, norm_first=True
        ).eval()
        state = {
            "self_attn.in_proj_weight": block.attention.projection.weight,
            "self_attn.in_proj_bias": block.attention.projection.bias,
            "self_attn.out_proj.weight": block.attention.output.weight,
            "self_attn.out_proj.bias": block.attention.output.bias,
        }
        parts = {"linear1": block.hidden[0], "linear2": block.hidden[3],
                 "norm1": block.attention_norm, "norm2": block.hidden_norm}  # fmt: skip
        for name, part in parts.items():
            state |= {f"{name}.{key}": each for key, each in part.state_dict().items()}
        layer.load_state_dict(state)
        layers.append(layer)
    features = []
    for row, length in enumerate(lengths):
        t = embedded(model, batch, row, length) + model.features.positions[:length]
        for layer in layers:
            t = layer(t[None])[0]
        features.append(model.features.norm(t).mean(0))
    torch.testing.assert_close(model(batch), logits(model, features), rtol=1e-4, atol=1e-5)


def test_transformer_reads_the_first_tokens_of_a_long_text():
    model = small("TextTransformer")  # reads 20
    long = texts([30, 4])
    short = {name: each[:, :20] for name, each in long.items()}
    assert torch.equal(model(long), model(short))


def test_transformer_refuses_data_with_longer_texts():
    model = small("TextTransformer")
    model.grow_inputs({"vocab_size": 15, "max_length": 20})
    with pytest.raises(errors.LongTextsError, match=r"at most 20 tokens.* is 21"):
        model.grow_inputs({"max_length": 21})
    for name in ("TextCNN", "TextGRU"):
        small(name).grow_inputs({"max_length": 100_000})


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("changes", [{}, {"random_features": 9}, {"nearest_mean": True}])
def test_state_dict_builds_the_same_model(name, changes):
    model, batch = small(name, **changes), texts(LENGTHS)
    again = type(model).from_state_dict(copy.deepcopy(model.state_dict())).eval()
    assert torch.equal(again(batch), model(batch))


@pytest.mark.parametrize("name", ["TextCNN", "TextTransformer"])
def test_program_takes_texts_of_other_lengths(name):
    model = small(name)
    program = trace(model, texts(LENGTHS), None, ragged=("",)).exported.module()
    for other in (texts([4, 2, 0]), texts([11, 1])):
        torch.testing.assert_close(program(other), model(other))


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (torch.ones(2, 3).long(), "called with Tensor"),
        ({"input_ids": torch.ones(2, 3).long()}, "no `attention_mask`"),
        ({**texts([3]), "input_ids": torch.ones(3).long()}, r"`input_ids` of \(3,\)"),
        ({**texts([3]), "input_ids": torch.ones(1, 4).long()}, r"`input_ids` \(1, 4\) and"),
    ],
)
def test_other_inputs_are_refused_by_name(name, inputs, found):
    with pytest.raises(errors.ModelInputsError, match=found):
        small(name)(inputs)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("TextCNN", {"vocab_size": 1}),
        ("TextCNN", {"kernel_sizes": []}),
        ("TextCNN", {"kernel_sizes": [3, 0]}),
        ("TextCNN", {"dropout": 1}),
        ("TextGRU", {"num_layers": 0}),
        ("TextGRU", {"hidden_size": 0}),
        ("TextTransformer", {"num_heads": 3}),
        ("TextTransformer", {"max_length": 0}),
        ("TextTransformer", {"embedding_size": 0}),
    ],
)
def test_argument_outside_its_range_is_refused(name, wrong):
    with pytest.raises(errors.ModelArgumentError, match=next(iter(wrong))):
        small(name, **wrong)
