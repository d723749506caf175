"""A compressed model beside its dense one: what each side shows, and whether a budget is met."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

import tiny_models
from models.check_models import WORKLOAD, compressed, folders
from narrows._values import ModelBudget, Workload
from narrows._values._check import Check
from narrows.errors import DtypeError, FileError, InputError
from narrows.models import _speed
from narrows.models._check import check
from narrows.models._check_pair import _tried
from narrows.models._check_sides import int8_copy, naive_copy, shared_copy
from narrows.models._texts import read_documents, split
from narrows.reporting._check import check_tables, speed_check_table

BOTH = (WORKLOAD, Workload("decode", 20))
TEXTS = tiny_models.texts(20)


@pytest.fixture(autouse=True, scope="module")
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_speed, "MOST_ROUNDS", 8)
        patch.setattr(_speed, "SAMPLE_NS", 1e5)
        yield


def checked(model, against, **options):
    given = {"texts": TEXTS, "windows": 16, "workloads": (WORKLOAD,), "tokenizer": tiny_models.tokenizer()}
    return check(model, against, **(given | options))


@pytest.fixture(scope="module")
def dense():
    return tiny_models.llama()


@pytest.fixture(scope="module")
def found(dense):
    return checked(compressed(dense), dense, workloads=BOTH, budget=ModelBudget(perplexity=0.5, keep=0.95, speedup=50))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("check"))


def test_four_sides_are_timed_at_every_workload(found):
    assert [(str(one.workload), one.side) for one in found.timings] == [
        (str(workload), side) for workload in BOTH for side in ("dense", "narrows", "int8", "naive")
    ]
    assert all(len(one.samples_ns) == 8 and min(one.samples_ns) > 0 for one in found.timings)
    assert not any(side.missing for side in found.sides)


def test_quality_stands_beside_dense(found):
    assert found.side("dense").language.ratio is None
    for name in ("narrows", "int8"):
        quality = found.side(name).language
        assert quality.perplexity == pytest.approx(found.side("dense").language.perplexity * quality.ratio.value)
        assert quality.divergence.value > 0
    assert found.side("naive").language is None


def test_what_is_stored_is_counted(found):
    # A block has 4 x 32 x 32, less half for k and v, and 3 x 32 x 64; gate becomes 4 x (32 + 64) in both blocks.
    numbers = 2 * (32 * 32 * 3 + 3 * 32 * 64)
    assert found.side("dense").numbers == found.side("int8").numbers == numbers
    assert found.side("narrows").numbers == found.side("naive").numbers == numbers - 2 * (32 * 64 - 4 * (32 + 64))
    assert found.side("narrows").kept_bytes == 4 * found.side("narrows").numbers
    # One byte a number, and scales: at least 4 bytes a row.
    rows = 2 * (32 + 16 + 16 + 32 + 64 + 64 + 32)
    assert numbers + 4 * rows <= found.side("int8").kept_bytes < 2 * numbers


def test_no_time_is_shown_without_what_it_costs(found):
    rows = {row[1].text: row for row in speed_check_table(found).rows}
    names = [column.name for column in speed_check_table(found).columns]

    loss = {side: row[names.index("quality")].value for side, row in rows.items()}
    ratios = {name: found.side(name).language.ratio.value for name in ("narrows", "int8")}
    assert loss == {
        "dense": None,
        "narrows": ratios["narrows"],
        "int8 weights": ratios["int8"],
        "naive factors": ratios["narrows"],
    }


def test_each_part_of_the_budget_is_judged(found):
    answers = {one.part: one.answer for one in found.judgements}

    assert answers == {"perplexity": "met", "keep": "met", "speedup": "broken"}
    assert (found.is_met, found.is_broken) == (False, True)
    assert "15104 of 18432 numbers are kept, 81.94%; 95 % is allowed" in {one.reason for one in found.judgements}


def test_a_check_travels_as_json(found):
    assert Check.from_json(found.to_json()) == found
    with pytest.raises(FileError, match="here is not a complete JSON document"):
        Check.from_json(found.to_json()[:-5], source="here")


def test_a_model_against_itself_loses_nothing_and_gains_nothing(dense):
    same = checked(dense, dense, budget=ModelBudget(perplexity=0.0, keep=0.99, speedup=50))

    quality = same.side("narrows").language
    assert (quality.ratio.value, quality.ratio.high, quality.divergence.value) == (1.0, 1.0, 0.0)
    assert same.sample.dense == same.sample.compressed
    assert [one.answer for one in same.judgements] == ["met", "broken", "broken"]
    assert same.side("naive").missing.startswith("no linear layer is low-rank")


def test_a_budget_without_doubt_is_met(dense):
    assert checked(compressed(dense), dense, budget=ModelBudget(keep=0.9)).is_met


def test_without_a_budget_there_is_nothing_to_judge(dense):
    free = checked(dense, dense)

    assert free.judgements == ()
    assert free.is_met


def test_the_models_are_left_as_they_were(dense):
    thin = compressed(dense).train()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}

    checked(thin, dense)

    assert thin.training
    assert not dense.training
    assert all(parameter.requires_grad for parameter in thin.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())


def test_a_sample_is_written_by_both_and_is_the_same_again(dense, found):
    assert TEXTS[0].startswith(found.sample.prompt)
    assert checked(compressed(dense), dense).sample == found.sample


def test_naive_factors_compute_the_same_with_the_same_tensors(dense):
    thin = compressed(dense)
    naive = naive_copy(thin)
    ids = torch.arange(16)[None]

    assert {id(one) for one in naive.parameters()} == {id(one) for one in thin.parameters()}
    with torch.no_grad():
        torch.testing.assert_close(naive(ids).logits, thin(ids).logits, rtol=0, atol=1e-5)
    assert type(naive.model.layers[0].mlp.gate_proj) is torch.nn.Sequential
    assert type(thin.model.layers[0].mlp.gate_proj) is not torch.nn.Sequential


def test_int8_weights_share_all_that_they_do_not_replace(dense):
    int8 = int8_copy(dense, ["model.layers.0.mlp.up_proj"])
    ids = torch.arange(16)[None]

    assert int8.lm_head.weight is dense.lm_head.weight
    with torch.no_grad():
        change = (int8(ids).logits - dense(ids).logits).abs().max()
    assert 0 < change < 0.05


def test_without_torchao_the_row_says_so(dense, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torchao" else real(name, *rest)
    )

    alone = checked(dense, dense)

    assert alone.side("int8").missing == "torchao is not installed"
    assert "int8" not in {one.side for one in alone.timings}
    for table in check_tables(alone)[:2]:
        (row,) = (row for row in table.rows if "int8 weights" in {cell.text for cell in row})
        assert row[-1].text == "torchao is not installed"


def test_linears_that_torchao_does_not_quantise_are_named():
    model = tiny_models.gpt2()
    names = ["transformer.h.0.mlp.c_fc"]

    assert int8_copy(model, names) == "torchao quantises nn.Linear, and the block linears are Conv1D"


def test_quantised_weights_that_do_not_run_are_named(dense):
    broken = shared_copy(dense)
    broken.model.layers[0].mlp.up_proj = torch.nn.Linear(3, 3)

    assert _tried(broken).startswith("torchao's int8 weights do not run: RuntimeError: mat1 and mat2")
    assert _tried(dense) is dense


def test_an_encoder_is_compared_by_its_embeddings():
    model = tiny_models.bert()
    found = checked(compressed(model), model, budget=ModelBudget(perplexity=0.1))

    assert found.side("narrows").encoder.similarity.high < 1 - 1e-7
    assert found.side("dense").encoder.similarity is None
    assert (found.kind, found.sample, found.text.windows, found.text.documents) == ("encoder", None, 0, 16)
    assert found.judgements[0].answer == "cannot tell"
    assert checked(model, model).side("narrows").encoder.similarity.low == pytest.approx(1, abs=1e-12)


def test_folders_are_loaded_and_read_only_the_text_that_was_kept(made):
    out, dense, text = made

    found = check(out, dense, windows=8)

    kept = split(read_documents(text), seed=0).check
    assert (found.text.part, found.text.source) == ("check", "text.jsonl")
    assert kept[0].startswith(found.sample.prompt)
    assert (found.folder, found.model) == (str(out), str(dense))
    assert {one.workload for one in found.timings} == {WORKLOAD}
    assert found.is_met
    assert found.side("narrows").disk_bytes == (out / "model.safetensors").stat().st_size


def test_another_text_is_read_whole(made, tmp_path):
    out, dense, _ = made
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"text": t}) for t in tiny_models.texts(20, seed=5)), encoding="utf-8")

    found = check(out, dense, texts=other, windows=8)

    assert (found.text.part, found.text.source, found.text.documents) == ("all", "other.jsonl", 7)


def test_a_text_that_is_gone_or_changed_is_asked_for(tmp_path):
    out, dense, text = folders(tmp_path)
    text.write_text(text.read_text(encoding="utf-8").replace("Document 0.3", "Document 9.9"), encoding="utf-8")
    with pytest.raises(InputError, match="text.jsonl is not what it was when the model was calibrated"):
        check(out, dense)
    text.unlink()
    told = rf"the text that the folder names is not there: {text} cannot be read: No such file"
    with pytest.raises(InputError, match=told):
        check(out, dense)


def test_a_dense_folder_is_no_compressed_one(made):
    with pytest.raises(FileError, match="has no narrows.json"):
        check(made[1], made[1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"windows": 0}, "windows=0 must be at least 1"),
        ({"tokenizer": None}, "models that are handed over bring no tokenizer"),
        ({"texts": None}, "texts: give a .txt or .jsonl file"),
        ({"pairs": "pairs.tsv"}, "pairs and labels are for encoders; LlamaForCausalLM is judged by perplexity"),
        ({"workloads": (Workload("prefill", 129),)}, "prefill:129x1 needs 129 positions; the model has 128"),
    ],
)
def test_bad_arguments_are_named(dense, options, text):
    with pytest.raises(InputError, match=text):
        checked(dense, dense, **options)


def test_models_that_do_not_fit_are_named(dense):
    with pytest.raises(InputError, match="dtype is torch.float32, the compressed one's torch.float64"):
        checked(tiny_models.llama().double(), dense)
    with pytest.raises(InputError, match="Qwen2ForCausalLM with 259 words was not made from LlamaForCausalLM"):
        checked(tiny_models.qwen2(), dense)
    with pytest.raises(InputError, match="the model is already quantised or compressed"):
        checked(dense, compressed(dense))
    images = tiny_models.vit()
    with pytest.raises(InputError, match="ViTModel is neither a causal language model nor an encoder of text"):
        checked(images, images)


def test_an_unknown_dtype_is_named(made):
    with pytest.raises(DtypeError, match="dtype=int4 is not supported"):
        check(made[0], made[1], dtype="int4")
