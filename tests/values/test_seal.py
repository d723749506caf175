"""Documents carry the SHA-256 of what they say: what was changed is refused, what means the same is read."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest

from narrows import Budget, Plan, Report, choose
from narrows._values._json import document, seal_of, sealed
from narrows.bench._layers_record import LayerTime, LayerTimes
from narrows.errors import FileError
from reporting.reports import make_report

CHANGED = "was changed after it was written: its SHA-256 is not the one it ends with"


@pytest.fixture(scope="module")
def report():
    return make_report(tokens=(8, 16), ranks=(8,), weights=("gaussian",), features=64, rounds=9)


@pytest.fixture(scope="module")
def plan(report):
    return choose(report, Budget(error=0.9))


def test_a_changed_figure_is_refused(report):
    text = report.to_json()
    old = f"{report.rows[0].samples_ns[0]}"
    assert text.count(old) == 1

    with pytest.raises(FileError, match=rf"^r\.json {CHANGED}"):
        Report.from_json(text.replace(old, f"{report.rows[0].samples_ns[0] * 2}"), source="r.json")


def test_no_flipped_bit_of_a_plan_reads_as_another_plan(plan):
    data = plan.to_json().encode()
    for bit in random.Random(0).sample(range(8 * len(data)), 400):  # noqa: S311 (no secret)
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert Plan.from_json(bytes(changed)) == plan  # the last digit of a number may mean nothing
        except FileError:
            continue


def test_a_document_without_its_seal_or_with_another_one_is_refused(plan):
    fields = json.loads(plan.to_json())
    other = json.dumps(fields | {"sha256": "0" * 64})
    del fields["sha256"]
    for text in (other, json.dumps(fields)):
        with pytest.raises(FileError, match=CHANGED):
            Plan.from_json(text)


def test_line_ends_spaces_and_the_order_of_keys_mean_nothing(plan):
    text = plan.to_json()
    fields = json.loads(text)
    seal = fields.pop("sha256")
    turned = {**dict(reversed(fields.items())), "sha256": seal}

    for same in (text + "\n\n", text.replace("\n", "\r\n"), json.dumps(fields | {"sha256": seal}), json.dumps(turned)):
        assert Plan.from_json(same) == plan


def test_documents_of_the_first_schema_have_no_seal_and_are_read(report, plan):
    for one, kind in ((report, Report), (plan, Plan)):
        fields = json.loads(one.to_json())
        del fields["sha256"]
        found = kind.from_json(json.dumps(fields | {"schema": 1}))
        assert found == one
        assert kind.from_json(found.to_json()) == one


@pytest.mark.parametrize("schema", ["0", "-1", "true", "1.0", "3", '"2"', "null", "9" * 5000])
def test_another_number_of_the_schema_is_refused(plan, schema):
    fields = json.loads(plan.to_json())
    text = json.dumps(fields | {"schema": "here"}).replace('"here"', schema)

    with pytest.raises(FileError, match=r"has schema .*; this version of narrows reads up to 2|is not a complete JSON"):
        Plan.from_json(text)


def test_what_is_not_finite_is_sealed_too():
    times = LayerTimes((LayerTime(8, 4, "pivot", 2, 16, 50.0, 2.0, 1.9, math.inf),), "float32", "cpu", "f", "n", "0")

    assert LayerTimes.from_json(times.to_json()) == times
    changed = replace(times, times=(replace(times.times[0], speedup_high=2.1),))
    assert seal_of(json.loads(changed.to_json())) != seal_of(json.loads(times.to_json()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"schema": 2, "a": 1, "a": 2}', "the key 'a' stands there twice"),
        ('{"schema": 2, "a": ' + "[" * 100_000 + "]" * 100_000 + "}", "it is nested too deeply"),
        ("[" * 100_000, "it is nested too deeply"),
        ("\ufeff{}", "BOM"),
        ("9" * 10_000, "4300 digits"),
        (f'{{"{"x" * 500}": 1, "{"x" * 500}": 1}}', "the key 'x{150}"),
        ('{"schema": 2'.encode("utf-16"), "invalid start byte"),
    ],
)
def test_json_that_readers_understand_in_two_ways_or_not_at_all_is_refused(text, why):
    with pytest.raises(FileError, match=rf"^p\.json is not a complete JSON document \(.*{why}") as told:
        Plan.from_json(text, source="p.json")
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 600


def test_a_document_beyond_64_mib_is_refused_before_it_is_parsed():
    with pytest.raises(ValueError, match="it has 67,108,865 bytes, more than 67,108,864"):
        document(b" " * ((64 << 20) + 1))


def test_foreign_text_in_a_message_is_one_short_line(plan):
    fields = json.loads(plan.to_json())
    for name in ("\x1b[31m", "a\nb", "x" * 65536):
        with pytest.raises(FileError, match="is not a valid narrows plan") as told:
            Plan.from_json(sealed({key: value for key, value in fields.items() if key != "sha256"} | {name: 1}))
        assert str(told.value).isprintable()
        assert len(str(told.value)) < 600


def test_a_list_of_wrong_values_is_told_by_its_first(plan):
    fields = {key: value for key, value in json.loads(plan.to_json()).items() if key != "sha256"}
    fields["choices"][0]["reasons"] = [0] * 200_000

    with pytest.raises(FileError, match=r"valid string at choices\.0\.reasons\.0 \(1 faults in all\)"):
        Plan.from_json(sealed(fields))


def test_a_report_with_a_time_of_zero_is_refused_before_something_is_divided_by_it(report):
    fields = {key: value for key, value in json.loads(report.to_json()).items() if key != "sha256"}
    fields["rows"][0]["samples_ns"][3] = 0.0

    with pytest.raises(FileError, match=r"samples_ns=0\.0 must be finite and > 0: a time is\. at rows\.0"):
        Report.from_json(sealed(fields))
