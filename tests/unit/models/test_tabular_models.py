"""TabularMLP and FTTransformer."""

from __future__ import annotations

import copy

import pytest
import torch
from small_inputs import CARDINALITIES, TABLES, small, table, texts
from torch import Tensor, nn

from renate_stages import errors
from renate_stages.export.program import trace
from renate_stages.models import FTTransformer, TabularMLP


def untied(model: nn.Module) -> nn.Module:
    """Give all weights random values, also those that start as zeros."""
    with torch.no_grad():
        for each in model.parameters():
            each += 0.3 * torch.randn_like(each)
    return model


def test_mlp_equals_layers_on_values_missing_flags_and_rows():
    model, x = untied(small("TabularMLP")), table(6)
    f = model.features
    rows = [f.embeddings[place].weight[x["categorical"][:, place]] for place in range(2)]
    rows = [each * (x["categorical"][:, [place]] > 0) for place, each in enumerate(rows)]
    hidden = torch.cat([x["numeric"], x["missing"], *rows], dim=1)
    assert hidden.shape == (6, 2 * 3 + 2 * 3)
    for layer in (f.layers[0], f.layers[2]):
        hidden = torch.relu(hidden @ layer.weight.T + layer.bias)
    torch.testing.assert_close(model(x), hidden @ model.head.weight.T + model.head.bias)


def test_transformer_equals_the_papers_equations():
    model, x = untied(small("FTTransformer")), table(6)
    f = model.features

    def norm(layer: nn.LayerNorm, t: Tensor) -> Tensor:
        spread = (t.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (t - t.mean(-1, keepdim=True)) / spread * layer.weight + layer.bias

    def attention(layer: nn.Module, t: Tensor) -> Tensor:
        d, heads = t.shape[-1], 2
        w, b = layer.projection.weight, layer.projection.bias
        q, k, v = (t @ w[i * d : (i + 1) * d].T + b[i * d : (i + 1) * d] for i in range(3))
        mixed = []
        for head in range(heads):
            part = slice(head * d // heads, (head + 1) * d // heads)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / (d / heads) ** 0.5
            mixed.append(scores.softmax(-1) @ v[..., part])
        return torch.cat(mixed, dim=-1) @ layer.output.weight.T + layer.output.bias

    def network(layers: nn.Sequential, t: Tensor) -> Tensor:
        both = t @ layers[0].weight.T + layers[0].bias
        u, v = both[..., : both.shape[-1] // 2], both[..., both.shape[-1] // 2 :]
        return (u * v.clamp(min=0)) @ layers[3].weight.T + layers[3].bias

    tokens = [f.cls[0].expand(6, -1)]
    for j in range(3):
        value, missing = x["numeric"][:, [j]], x["missing"][:, [j]]
        tokens.append(f.bias[j] + value * f.weight[j] + missing * f.missing[j])
    for j in range(2):
        codes = x["categorical"][:, j]
        tokens.append(f.bias[3 + j] + f.embeddings[j].weight[codes] * (codes > 0)[:, None])
    t = torch.stack(tokens, dim=1)  # (B, 1 + n + c, d)
    for number, block in enumerate(f.blocks):
        t = t + attention(block.attention, norm(block.attention_norm, t) if number else t)
        t = t + network(block.hidden, norm(block.hidden_norm, t))
    features = norm(f.end[0], t[:, 0]).clamp(min=0)
    expected = features @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_transformer_has_the_papers_default_sizes():
    model = FTTransformer(num_numeric=3, cardinalities=[5, 4], num_outputs=1)
    blocks = 3 * (4 * 192 * 193 + 192 * 512 + 512 + 256 * 192 + 192 + 4 * 192) - 2 * 192
    tokens = 3 * 192 + 3 * 192 + 5 * 192 + 9 * 192 + 192  # values, missing, biases, codes, CLS
    assert sum(p.numel() for p in model.parameters()) == blocks + tokens + 2 * 192 + 193


WORDS = [9, 12]  # sizes of two vocabularies


def with_texts(x: dict, titles: list[int], comments: list[int], width: int = 0) -> dict:
    """Add two text columns with texts of these lengths, padded by `width` more tokens."""
    parts = (texts(each, width=max(each) + width) for each in (titles, comments))
    first, second = parts
    return {**x, "text": (first | {"input_ids": first["input_ids"].clamp(max=8)}, second)}


def mean_of_words(model: nn.Module, x: dict, place: int) -> Tensor:
    rows = []
    for ids, mask in zip(*x["text"][place].values(), strict=True):
        found = [
            model.features.words[place].weight[n]
            for n, is_one in zip(ids, mask, strict=True)
            if is_one
        ]
        rows.append(sum(found) / len(found) if found else torch.zeros(rows[0].shape))
    return torch.stack(rows)


TITLES, COMMENTS = [2, 1, 2, 0, 3, 1], [7, 0, 3, 1, 5, 7]


def test_mlp_reads_a_text_column_as_the_mean_of_its_words():
    model = untied(small("TabularMLP", vocab_sizes=WORDS, word_size=4))
    x = with_texts(table(6), TITLES, COMMENTS)
    f = model.features
    rows = [f.embeddings[place](x["categorical"][:, place]) for place in range(2)]
    words = [mean_of_words(model, x, place) for place in range(2)]
    hidden = torch.cat([x["numeric"], x["missing"], *rows, *words], dim=1)
    for layer in (f.layers[0], f.layers[2]):
        hidden = torch.relu(hidden @ layer.weight.T + layer.bias)
    torch.testing.assert_close(model(x), hidden @ model.head.weight.T + model.head.bias)


def test_transformer_has_a_token_for_each_text_column():
    model = untied(small("FTTransformer", vocab_sizes=WORDS))
    x, f = with_texts(table(6), TITLES, COMMENTS), model.features
    seen = []
    f.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(x)
    for place in range(2):
        expected = f.bias[5 + place] + mean_of_words(model, x, place)
        torch.testing.assert_close(seen[0][:, 1 + 5 + place], expected)


@pytest.mark.parametrize("name", TABLES)
def test_padding_of_text_columns_never_changes_an_output(name):
    model = untied(small(name, vocab_sizes=WORDS))
    x, wider = (with_texts(table(6), TITLES, COMMENTS, width) for width in (0, 4))
    for wide, part in zip(wider["text"], x["text"], strict=True):
        for key, each in part.items():
            wide[key][:, : each.shape[1]], wide[key][:, each.shape[1] :] = each, 0
        wide["input_ids"][:, -2:] = 5  # ids under the mask have no effect
    torch.testing.assert_close(model(wider), model(x))
    empty = {**x, "text": tuple({key: each[:, :0] for key, each in p.items()} for p in x["text"])}
    nothing = with_texts(table(6), [0, 0, 0, 0, 0, 1], COMMENTS)["text"]
    zeros = {**x, "text": tuple({key: 0 * each for key, each in p.items()} for p in nothing)}
    assert torch.equal(model(empty), model(zeros)), "a text without words counts as zero"


@pytest.mark.parametrize("name", TABLES)
def test_vocabularies_of_text_columns_grow(name, tmp_path):
    model, x = untied(small(name, vocab_sizes=WORDS)), with_texts(table(6), TITLES, COMMENTS)
    before, sizes = model(x), {"num_numeric": 3, "cardinalities": CARDINALITIES}
    model.grow_inputs({**sizes, "vocab_sizes": [9, 15]})
    assert model.grown == {"features.words.1": [12, 15]} and torch.equal(model(x), before)
    again = type(model).from_state_dict(copy.deepcopy(model.state_dict())).eval()
    assert torch.equal(again(x), before)
    with pytest.raises(errors.InputSizesError, match=r"built for 2 text columns.* has 1"):
        model.grow_inputs({**sizes, "vocab_sizes": [9]})
    with pytest.raises(errors.InputSizesError, match="built for 0 text columns"):
        small(name).grow_inputs({**sizes, "vocab_sizes": [9]})


@pytest.mark.parametrize("name", TABLES)
def test_program_takes_texts_of_other_lengths_also_if_all_were_short(name):
    model = small(name, vocab_sizes=WORDS)
    batch = with_texts(table(6), [1, 0, 1, 1, 0, 1], COMMENTS)
    traced = trace(model, batch, None, ragged=("text.0", "text.1"))
    shapes = {each["name"]: each["shape"] for each in traced.inputs}
    assert shapes["numeric"] == [None, 3] and shapes["text.0.input_ids"] == [None, None]
    program = traced.exported.module()
    for titles in (TITLES, [1, 0, 1, 1, 0, 1]):
        other = with_texts(table(6), titles, COMMENTS)
        torch.testing.assert_close(program(other), model(other))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "no `text`"),
        (texts([3]), "`text` of dict"),
        ((texts([3] * 6),), "`text` of 1 parts"),
    ],
    ids=["missing", "dict", "columns"],
)
def test_other_text_columns_are_refused_by_name(name, text, found):
    x = table(6) if text is None else {**table(6), "text": text}
    with pytest.raises(errors.ModelInputsError, match=f"{found}; expected .*`text`, a tuple of 2"):
        small(name, vocab_sizes=WORDS)(x)


@pytest.mark.parametrize("name", TABLES)
def test_column_that_was_never_missing_counts_as_its_mean_when_it_is(name):
    model, x = small(name), table(6)
    untouched = model({**x, "missing": torch.zeros_like(x["missing"])})
    torch.testing.assert_close(model(x), untouched)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    model(x).square().mean().backward()
    optimizer.step()
    assert not torch.allclose(
        model.eval()(x), model({**x, "missing": torch.zeros_like(x["missing"])})
    ), "a column that was missing in training has an effect"


@pytest.mark.parametrize("name", TABLES)
def test_parts_without_columns_may_be_absent(name):
    x = table(6)
    numeric = {key: x[key] for key in ("numeric", "missing")}
    categorical = {"categorical": x["categorical"]}
    assert small(name, cardinalities=[])(numeric).shape == (6, 3)
    assert small(name, num_numeric=0)(categorical).shape == (6, 3)
    nothing = {"categorical": torch.zeros(6, 0, dtype=torch.int64)}
    assert small(name, cardinalities=[])({**numeric, **nothing}).shape == (6, 3)
    for model in (small(name, num_numeric=0), small(name, cardinalities=[])):
        assert all(each.numel() for each in model.parameters())


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (torch.zeros(6, 5), "called with Tensor"),
        ({**table(6), "numeric": torch.zeros(6, 4)}, r"`numeric` of shape \(6, 4\)"),
        ({"numeric": torch.zeros(6, 3)}, "no `missing`"),
        ({**table(6), "categorical": [1, 2]}, "`categorical` of list"),
        ({**table(6), "categorical": torch.zeros(6, 3).long()}, r"`categorical` of shape \(6, 3\)"),
    ],
    ids=["tensor", "width", "missing", "list", "codes"],
)
def test_other_inputs_are_refused_by_name(name, inputs, found):
    expected = r"a dict with `numeric` and `missing` \(B, 3\) float, `categorical` \(B, 2\) int64"
    with pytest.raises(errors.ModelInputsError, match=f"{found}; expected {expected}"):
        small(name)(inputs)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"num_numeric": -1}, "num_numeric is -1"),
        ({"num_numeric": 0, "cardinalities": []}, "at least one"),
        ({"cardinalities": [5, 0]}, "cardinalities is 0"),
        ({"cardinalities": "54"}, "cardinalities is '54'"),
        ({"vocab_sizes": [5, 1]}, "vocab_sizes is 1"),
        ({"vocab_sizes": 7}, "vocab_sizes is 7"),
        ({"num_outputs": 0}, "num_outputs is 0"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"nearest_mean": True, "heads": "per_task"}, "nearest_mean"),
    ],
)
def test_argument_outside_its_range_is_refused(name, wrong, expected):
    with pytest.raises(errors.ModelArgumentError, match=expected):
        small(name, **wrong)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("TabularMLP", {"dropout": 1.0}),
        ("TabularMLP", {"normalization": "group"}),
        ("TabularMLP", {"embedding_size": 0}),
        ("TabularMLP", {"num_hidden_layers": -1}),
        ("FTTransformer", {"num_heads": 3}),
        ("FTTransformer", {"num_blocks": 0}),
        ("FTTransformer", {"attention_dropout": -0.1}),
        ("FTTransformer", {"residual_dropout": 1}),
    ],
)
def test_argument_of_one_model_outside_its_range_is_refused(name, wrong):
    with pytest.raises(errors.ModelArgumentError, match=next(iter(wrong))):
        small(name, **wrong)


def test_width_of_an_embedding_follows_its_cardinality():
    model = TabularMLP(0, [1, 2, 7, 99, 1000], 2)
    assert [each.embedding_dim for each in model.features.embeddings] == [1, 1, 4, 50, 50]
    assert small("TabularMLP", num_hidden_layers=0)(table(4)).shape == (4, 3)
    widths = TabularMLP(2, [3], 2, hidden_size=[7, 5]).features.layers
    assert [each.out_features for each in widths if isinstance(each, nn.Linear)] == [7, 5]


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_normalization_follows_each_linear_layer(normalization):
    model = small("TabularMLP", normalization=normalization, dropout=0.2)
    kinds = [type(each).__name__ for each in model.features.layers]
    norm = {"batch": "BatchNorm1d", "layer": "LayerNorm"}[normalization]
    assert kinds == 2 * ["Linear", norm, "ReLU", "Dropout"]
    assert model(table(6)).shape == (6, 3)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("changes", [{}, {"random_features": 9}, {"nearest_mean": True}])
def test_state_dict_builds_the_same_model(name, changes):
    model = untied(small(name, **changes)).eval()
    again = type(model).from_state_dict(copy.deepcopy(model.state_dict())).eval()
    assert torch.equal(again(table(6)), model(table(6)))


@pytest.mark.parametrize("name", TABLES)
def test_program_gives_the_outputs_for_any_number_of_rows_and_unknown_codes(name):
    model = untied(small(name)).eval()
    model.grow_inputs({"cardinalities": [each + 1 for each in CARDINALITIES]})
    program = trace(model, table(6, more=3), None).exported.module()
    torch.testing.assert_close(program(table(9, more=3)), model(table(9, more=3)))
