"""The benchmark of words: what calibrates it is no judged word, and attention weighs keys as it should."""

from __future__ import annotations

import copy
import itertools
import json
import sys

import pytest
import torch

import tiny_models
import word_similarity
from models.test_families import spread
from narrows.decompose import head_moments
from narrows.models._attention import AttentionWidths, attention_inputs, attention_layers
from narrows.models._calibrate import calibrate
from narrows.models._match import targets
from narrows.models.families import family_of

JUDGED = ("ship", "sails", "island", "harbour", "moon")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder")
    tiny_models.folder(spread(tiny_models.bert()), place / "bert")
    lines = [json.dumps({"text": text}) for text in tiny_models.texts(40)]
    (place / "texts.jsonl").write_text("\n".join(lines))
    pairs = [f"{a}\t{b}\t{i}" for i, (a, b) in enumerate(itertools.combinations(JUDGED, 2))]
    (place / "pairs.tsv").write_text("\n".join(pairs))
    return place


def arguments(folders, output, *more):
    words = ["word_similarity.py", "--model", folders / "bert", "--texts", folders / "texts.jsonl"]
    words += ["--pairs", folders / "pairs.tsv", "--output", output, "--tokens", 1024, "--documents", 3, *more]
    return [str(word) for word in words]


@pytest.fixture
def bench(folders, monkeypatch):
    monkeypatch.setattr(sys, "argv", arguments(folders, "-"))
    return word_similarity.opened(word_similarity.parsed())


def test_every_text_weight_and_width_has_a_row(folders, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(word_similarity, "LENGTHS", (64, 16, 4))
    monkeypatch.setattr(word_similarity, "DOCUMENT_TOKENS", 64)
    output = tmp_path / "record.json"
    monkeypatch.setattr(sys, "argv", arguments(folders, output, "--seeds", 1, "--widths", "8,4"))
    word_similarity.main()
    record = json.loads(output.read_text())
    dense, *rows = record["rows"]
    assert dense["width"] is None
    assert [(row["text"], row["width"], row["weights"]) for row in rows] == list(
        itertools.product(("windows", "lengths", "words"), (8, 4), ("even", "attended"))
    )
    for row in rows:
        assert row["loss"]["low"] <= row["loss"]["value"] <= row["loss"]["high"]
        assert row["loss"]["value"] == pytest.approx(dense["spearman"] - row["spearman"])
        if row["width"] == 8:  # the whole head: nothing is lost but rounding
            assert row["documents_cosine"]["value"] == pytest.approx(1, abs=1e-5)
    assert all(960 <= row["tokens"] <= 1024 for row in rows if row["text"] != "words")
    assert all(row["documents_cosine"]["value"] < 0.9999 for row in rows if row["width"] == 4)
    assert len({row["documents_cosine"]["value"] for row in rows if row["width"] == 4}) == 6  # none is another's
    assert capsys.readouterr().out.count("loss") == len(rows)


def test_no_judged_word_calibrates(bench):
    inputs = word_similarity.worded(bench, bench.documents, 0)
    words = {bench.tokenizer.decode(ids, skip_special_tokens=True) for one in inputs for ids in one["input_ids"]}
    assert {"narrow", "strait", "document"} <= words
    assert not words & set(JUDGED)


def test_lengths_have_equal_shares(bench):
    inputs = word_similarity.windowed(bench, bench.documents, (64, 16, 4), 0)
    tokens = {}
    for one in inputs:
        length = one["input_ids"].shape[1]
        tokens[length] = tokens.get(length, 0) + one["input_ids"].numel()
    assert tokens == {64: 320, 16: 336, 4: 340}


def test_even_attention_weighs_keys_evenly_and_other_attention_does_not(bench):
    inputs = word_similarity.worded(bench, bench.documents, 0)
    model = copy.deepcopy(bench.model)
    names = attention_inputs(model, AttentionWidths(query_key=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "self.key.bias" in name or "self.query" in name:
                parameter.zero_()

    def apart(model):
        moments = calibrate(model, inputs, targets(model, lambda _, name: name in names), gradients=False)
        found = word_similarity.attended_keys(model, inputs)
        differences = []
        for name, module in attention_layers(model):
            family = family_of(module)
            key, of_input = family.read(module).key, moments[f"{name}.{family.layers[0]}"]
            even = head_moments(key.weight, key.bias, of_input, heads=4, centred=True)
            differences.append(float((found[name] - even).norm() / even.norm()))
        return max(differences)

    assert apart(model) < 0.05  # every row is even, but words differ in length: a key of a short one gets more
    with torch.no_grad():
        for parameter in model.get_submodule("encoder.layer.0.attention.self.query").parameters():
            parameter.normal_(std=5)
    assert apart(model) > 0.1


def test_padding_neither_gets_nor_gives_weight(bench):
    words = ["strait", "a", "narrow"]
    padded = [dict(bench.tokenizer(words, padding=True, return_tensors="pt"))]
    alone = [dict(bench.tokenizer([word], return_tensors="pt")) for word in words]
    first, second = (word_similarity.attended_keys(bench.model, inputs) for inputs in (padded, alone))
    for name, moments in first.items():
        assert torch.allclose(moments, second[name], atol=1e-6)
