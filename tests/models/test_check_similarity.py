"""Encoders against dense: cosines, people's scores, classes; and the files that hold them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import tiny_models
from narrows.errors import FileError, NonFiniteError
from narrows.models._check_data import Pairs, read_labelled, read_pairs
from narrows.models._check_sides import shared_copy
from narrows.models._similarity import Seen, embeddings, encoder_quality, is_classified

DOCUMENTS = np.eye(4)


def test_embeddings_are_means_over_the_tokens_of_each_text_alone():
    model, words = tiny_models.bert(), tiny_models.tokenizer()
    texts = ["ship", "a much longer text about a narrow strait"]

    together = embeddings("dense", model, words, texts, tokens=64)

    for text, found in zip(texts, together, strict=True):
        with torch.no_grad():
            mean = model(**words(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(found, mean / mean.norm(), atol=1e-6)


def test_a_text_is_cut_where_the_model_ends():
    model, words = tiny_models.bert(), tiny_models.tokenizer()

    whole, cut = (embeddings("dense", model, words, ["x" * n], tokens=8) for n in (400, 8))

    np.testing.assert_allclose(whole, cut, atol=1e-6)


def test_nan_embeddings_are_an_error_that_names_the_model():
    broken = shared_copy(tiny_models.bert())
    broken.embeddings.LayerNorm.bias = torch.nn.Parameter(torch.full((tiny_models.HIDDEN,), torch.nan))

    with pytest.raises(NonFiniteError, match="int8 gives NaN or Inf embeddings"):
        embeddings("int8", broken, tiny_models.tokenizer(), ["ship"], tokens=8)


def made_pairs(number: int = 60) -> tuple[Pairs, np.ndarray]:
    generator = np.random.default_rng(0)
    scores = np.round(generator.uniform(0, 10, number))  # many are equal
    names = tuple(str(i) for i in range(number))
    return Pairs(names, names, tuple(scores)), scores


def test_correlation_is_spearmans_with_equal_scores():
    pairs, scores = made_pairs()
    cosines = scores / 10 + np.random.default_rng(1).normal(0, 0.2, len(scores))

    found = encoder_quality(Seen(DOCUMENTS, cosines), None, pairs, seed=0)

    assert found.correlation == pytest.approx(spearmanr(cosines, scores).statistic)
    assert found.correlation_change is None


def test_an_encoder_that_lost_what_people_see_is_found_and_the_same_one_is_not():
    pairs, scores = made_pairs()
    noise = np.random.default_rng(1).normal(0, 1, (2, len(scores)))
    dense, worse = Seen(DOCUMENTS, scores + noise[0]), Seen(DOCUMENTS, scores + 10 * noise[1])

    lost = encoder_quality(dense, worse, pairs, seed=0).correlation_change
    same = encoder_quality(dense, dense, pairs, seed=0).correlation_change

    assert lost.high < 0
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def lines_of_two_classes(apart: float) -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(0)
    labels = ["ham", "spam"] * 40
    shift = apart * np.array([[label == "spam"] for label in labels])
    return generator.normal(0, 1, (80, 12)) + shift, labels


def test_classes_that_lie_apart_are_told_and_others_are_guessed():
    assert is_classified(*lines_of_two_classes(3.0), seed=0).mean() > 0.95
    # Of 80 guesses 50 % are right, with a standard deviation of 5.6 %.
    assert 0.3 < is_classified(*lines_of_two_classes(0.0), seed=0).mean() < 0.7


def test_more_features_than_lines_can_be_classified():
    features, labels = lines_of_two_classes(3.0)

    assert is_classified(np.tile(features, 20), labels, seed=0).mean() > 0.9


def test_accuracy_is_compared_line_by_line():
    dense = Seen(DOCUMENTS, is_right=np.array([1.0] * 90 + [0.0] * 10))
    worse = Seen(DOCUMENTS, is_right=np.array([1.0] * 70 + [0.0] * 30))

    found = encoder_quality(dense, worse, None, seed=0)

    assert (found.accuracy, found.accuracy_change.value) == (0.7, pytest.approx(-0.2))
    # 20 of 100 lines changed: a standard error of 4 %, where two unpaired shares would have 5.5 %.
    assert -0.3 < found.accuracy_change.low < found.accuracy_change.high < -0.11


def test_pairs_are_read_with_a_heading_and_remarks(tmp_path):
    file = tmp_path / "pairs.tsv"
    rows = [f"a{i}\tb{i}\t{i}" for i in range(10)]
    file.write_text("\n".join(["word1\tword2\tscore", "# made up", *rows, ""]), encoding="utf-8")

    found = read_pairs(file)

    assert (found.first[0], found.second[9], found.scores[9]) == ("a0", "b9", 9.0)


def test_labelled_lines_are_read(tmp_path):
    file = tmp_path / "lines.jsonl"
    rows = [json.dumps({"text": f"text {i}", "label": i % 2}) for i in range(10)]
    file.write_text("\n".join(rows), encoding="utf-8")

    assert read_labelled(file).labels == ("0", "1") * 5


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_pairs, "a\tb\t1\n" * 9, "holds 9 word pairs; a correlation needs at least 10"),
        (read_pairs, "a\tb\t1\na b 1\n", "line 2: 'a b 1' is not word1, word2 and a score"),
        (read_labelled, '{"text": "a"}\n', "line 1: .* is not an object with"),
        (read_labelled, '{"text": "a", "label": 1}\n' * 12, "holds 12 lines of 1 classes: give at least 10 of 2"),
    ],
)
def test_files_that_are_no_such_files_are_named(tmp_path, read, text, message):
    file = tmp_path / "file"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=message):
        read(file)
    with pytest.raises(FileError, match="none cannot be read: No such file"):
        read(tmp_path / "none")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match=r"file is not UTF-8 text \(invalid start byte at byte 0\)"):
        read(file)
