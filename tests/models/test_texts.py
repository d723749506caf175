"""Documents, their division into parts, and windows of tokens."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from narrows.errors import FileError, InputError
from narrows.models._texts import read_documents, split, windows

BOS, EOS = 256, 257


def marked(begin: str, end: str):
    """Return the tokenizer of bytes, putting marks around every text by itself."""
    from tokenizers.processors import TemplateProcessing

    made = tiny_models.tokenizer()
    single = " ".join(part for part in (begin, "$A", end) if part)
    marks = [(token, made.convert_tokens_to_ids(token)) for token in (begin, end) if token]
    made.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=marks)
    return made


def test_a_list_is_taken_as_it_is_without_blank_documents():
    assert read_documents(["one", " \n", "two"]) == ("one", "two")


def test_every_line_of_a_jsonl_file_is_a_document(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\\n\\ntwo", "id": 1}\n\n{"text": "three"}\n')
    assert read_documents(path) == ("one\n\ntwo", "three")


@pytest.mark.parametrize("line", ['{"body": "x"}', '{"text": 3}', "plain", "[1]", '{"text": "cut'])
def test_a_line_without_a_text_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(FileError, match=r'a\.jsonl, line 2: .* is not a JSON object with a "text"'):
        read_documents(path)


def test_a_txt_file_is_cut_at_blank_lines_into_passages(tmp_path):
    path = tmp_path / "book.txt"
    paragraphs = [f"{i} " + "word " * 1000 for i in range(6)]  # 5 002 characters each
    path.write_text("\n\n".join(paragraphs))
    found = read_documents(path)
    assert [len(one) >= 8192 for one in found] == [True, True, True]
    assert "\n\n".join(found) == "\n\n".join(paragraphs)


def test_the_short_end_of_a_txt_file_belongs_to_the_passage_before(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("x" * 9000 + "\n\n" + "y" * 9000 + "\n \nend")
    assert [one[-3:] for one in read_documents(path)] == ["xxx", "end"]


def test_a_short_txt_file_is_one_document(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("one\n\ntwo")
    assert read_documents(str(path)) == ("one\n\ntwo",)


def test_a_folder_is_read_by_name(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "first"}))
    (tmp_path / "c.md").write_text("not read")
    assert read_documents(tmp_path) == ("first", "second")


def test_a_source_without_documents_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.txt or \.jsonl file"):
        read_documents(tmp_path)
    with pytest.raises(InputError, match="the list holds no document"):
        read_documents([" "])


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileError, match=r"missing\.txt cannot be read: No such file"):
        read_documents(tmp_path / "missing.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(FileError, match=r"latin\.txt is not UTF-8 \(byte 3\)"):
        read_documents(tmp_path / "latin.txt")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(FileError, match=r"a\.csv is neither \.txt nor \.jsonl"):
        read_documents(tmp_path / "a.csv")


@given(st.lists(st.integers(1, 500), min_size=3, max_size=40), st.integers(0, 5))
def test_parts_are_disjoint_complete_and_of_their_shares(sizes, seed):
    documents = [f"{i}:" + "x" * size for i, size in enumerate(sizes)]
    parts = split(documents, seed=seed)
    together = [*parts.calibration, *parts.selection, *parts.check]
    assert sorted(together) == sorted(documents)
    assert min(map(len, (parts.calibration, parts.selection, parts.check))) >= 1
    total, largest = sum(map(len, documents)), max(map(len, documents))
    for share, part in zip((0.5, 0.15, 0.35), (parts.calibration, parts.selection, parts.check), strict=True):
        # A part is given a document only while it lacks most, so it is over by less than one of them.
        assert sum(map(len, part)) <= share * total + largest


def test_the_seed_decides_the_parts():
    documents = tiny_models.texts(12)
    assert split(documents, seed=1) == split(documents, seed=1)
    assert split(documents, seed=1) != split(documents, seed=2)


def test_the_same_text_twice_is_refused():
    documents = [*tiny_models.texts(3), "the same  text", "other", "the same\ntext "]
    with pytest.raises(InputError, match="documents 3 and 5 are the same text"):
        split(documents, seed=0)


def test_too_few_documents_to_divide_is_an_error():
    with pytest.raises(InputError, match="2 documents cannot be divided"):
        split(["one", "two"], seed=0)


def test_windows_are_consecutive_tokens_of_one_document():
    documents = ["abcdefghij", "0123456789"]
    found = windows(documents, tiny_models.tokenizer(), tokens=4, number=4, seed=0)
    read = [tiny_models.tokenizer().decode(ids) for ids in found.ids_NT]
    assert read == ["abcd", "efgh", "0123", "4567"]
    assert found.documents_N.tolist() == [0, 0, 1, 1]
    assert found.ids_NT.dtype == torch.int64


def test_marks_that_a_tokenizer_only_names_are_not_added():
    made = tiny_models.tokenizer()
    assert made.bos_token_id == BOS
    assert windows(["abcdefgh"], made, tokens=4, number=2, seed=0).begin == ()


@pytest.mark.parametrize(("begin", "end"), [("<s>", ""), ("<s>", "</s>"), ("", "</s>")])
def test_marks_that_a_tokenizer_adds_stand_around_every_window_and_are_recorded(begin, end):
    found = windows(["abcdefgh"], marked(begin, end), tokens=4, number=2, seed=0)
    assert found.begin == ((BOS,) if begin else ())
    assert found.end == ((EOS,) if end else ())
    for ids in found.ids_NT.tolist():
        assert (ids[0] == BOS) == bool(begin)
        assert (ids[-1] == EOS) == bool(end)
        assert len(ids) == 4
        assert all(token < BOS for token in ids[bool(begin) : len(ids) - bool(end)])


def test_short_documents_are_joined_until_they_fill_a_window():
    found = windows(["abc", "def", "ghi", "jkl"], tiny_models.tokenizer(), tokens=8, number=2, seed=0)
    read = [tiny_models.tokenizer().decode(ids) for ids in found.ids_NT]
    assert all("\n\n" in one for one in read)
    assert len(set(found.documents_N.tolist())) == 2


def test_the_seed_decides_which_windows():
    documents = tiny_models.texts(6)
    one, same, other = (windows(documents, tiny_models.tokenizer(), tokens=16, number=8, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.ids_NT, same.ids_NT)
    assert not torch.equal(one.ids_NT, other.ids_NT)


def test_windows_come_from_many_documents():
    found = windows(tiny_models.texts(12), tiny_models.tokenizer(), tokens=64, number=24, seed=0)
    # Drawn from at least 100 windows of 12 documents, 24 leave a given one out with a chance below 0.12.
    assert len(set(found.documents_N.tolist())) >= 8


def test_too_little_text_says_how_much_there_is():
    with pytest.raises(InputError, match=r"2 documents of 20 characters make 4 windows of 4 tokens, and 9 are asked"):
        windows(["abcdefghij", "0123456789"], tiny_models.tokenizer(), tokens=4, number=9, seed=0)
    with pytest.raises(InputError, match=r"make 0 windows of 64 tokens.*longer documents"):
        windows(["abc"], tiny_models.tokenizer(), tokens=64, number=1, seed=0)


def test_a_window_of_marks_only_is_an_error():
    with pytest.raises(InputError, match="longer than the 2 tokens that the tokenizer adds"):
        windows(["abc"], marked("<s>", "</s>"), tokens=2, number=1, seed=0)
