"""The supply part: lists that agree, packages that build alike, and narrows without what is optional; each can fail."""

from __future__ import annotations

import ast
import json

import pytest
from soak.supply import build, lists, without
from soak.supply import part as supply
from soak.supply.lists import OWN_HASH

HASH = "--hash=sha256:" + "0" * 64
PROJECT = ["LICENSE", "README.md", "src/narrows/__init__.py", "src/narrows/__main__.py", "src/narrows/cli/_main.py"]
PROJECT = [*PROJECT, "src/narrows/py.typed", "tests/test_a.py"]
ABOUT = [
    f"narrows-1.dist-info/{name}" for name in ("METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE", "WHEEL")
]
WHEEL = [*(name.removeprefix("src/") for name in PROJECT if name.startswith("src/")), *ABOUT]


@pytest.fixture(scope="module")
def licences():
    return lists.tool("licences")


def failed(figures):
    return [str(figure) for figure in figures if figure.status == "failed"]


def test_licences_imports_and_hashes_are_in_order():
    assert not failed(supply.listed())


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND CNRI-Python", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-or-later", False),
        ("AGPL-3.0", False),
        ("(MIT OR GPL-3.0-only) AND MIT", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_licence_is_allowed_where_every_part_of_a_choice_is(licences, expression, is_allowed):
    assert licences.is_allowed(expression) is is_allowed


def distribution(tmp_path, licences, about, files=()):
    """Return an installed package with this metadata."""
    folder = tmp_path / "thing-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: thing\nVersion: 1\n{about}\n", encoding="utf-8")
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    (folder / "RECORD").write_text("".join(f"{name},,\n" for name, _ in files), encoding="utf-8")
    return licences.find("thing", [str(tmp_path)])


@pytest.mark.parametrize(
    ("about", "files", "licence"),
    [
        ("License-Expression: GPL-3.0-only", (), "GPL-3.0-only"),
        ("License: Apache 2.0 License", (), "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: MIT License", (), "MIT"),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", (), "unknown"),
        ("License: BSD", [("thing.py", "# Redistribution and use in source and binary forms\n")], "BSD-2-Clause"),
        ("", [("thing-1.dist-info/LICENSE", "Permission is hereby granted, free of charge\n")], "MIT"),
        ("", (), "unknown"),
    ],
)
def test_a_licence_is_read_from_metadata_and_is_unknown_where_they_do_not_tell(
    tmp_path, licences, about, files, licence
):
    assert licences.licence(distribution(tmp_path, licences, about, files)) == licence


def test_a_page_of_licences_that_is_out_of_date_is_reported(licences):
    row = licences.Row("thing", "1", "MIT", "narrows")

    assert licences.differences(licences.page([row]), [row]) == []
    assert licences.differences(licences.page([row]), [licences.Row("thing", "2", "MIT", "narrows")]) == [
        "| thing | 2 | MIT | narrows |"
    ]


def test_the_page_of_licences_names_what_every_extra_declares(licences):
    text = licences.PAGE.read_text(encoding="utf-8")

    assert {name for name in licences.named() if f"\n| {name} |" not in text} == set()


def test_an_import_that_nothing_declares_is_reported():
    found = {"torch": "a.py", "yaml": "b.py"}

    assert lists.faults_of_imports(found, {"torch", "click"}) == [
        "b.py imports yaml, which nothing declares",
        "click is declared, and nothing imports it",
    ]


def test_every_way_to_import_is_seen():
    code = "import a.b\nfrom c.d import e\nfrom . import f\nimportlib.import_module('g.h')\nif x:\n    import i as j"

    assert list(lists.imported(ast.parse(code))) == ["a", "c", "g", "i"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"numpy=={{numpy}} \\\n    {HASH}\n", ""),
        (f"numpy=={{numpy}} \\\n    {HASH} \\\n    {HASH}\n", ""),
        ("numpy=={numpy}\n", "numpy has no hash"),
        (f"numpy==1.0 {HASH}\n", "numpy==1.0: {numpy} is pinned"),
        (f"click=={{click}} {HASH}\n", "numpy is not in it"),
        (f"numpy=={{numpy}} {HASH}\n--index-url x\n", "1 lines cannot be read"),
        (f"numpy=={{numpy}} {HASH}\n# https" + "://host\n", "a host is in it"),
    ],
)
def test_a_hashed_list_that_is_wrong_is_reported(text, fault):
    pins = lists.pins()
    found = lists.faults_of_lock(text.format(**pins), {"numpy", OWN_HASH})

    assert found == ([fault.format(**pins)] if fault else [])


def test_a_script_that_installs_without_hashes_is_seen():
    assert lists.is_installed_by("pip install \\\n  --require-hashes -r .ci/requirements.txt\nmake test\n")
    assert not lists.is_installed_by("pip install -r .ci/requirements.txt\nmake test\n")


def test_vulnerabilities_are_reported_and_silence_is_not_shown():
    known = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "V-1"}]}, {"name": "b", "version": "2"}]}

    assert lists.read_audit(1, json.dumps(known), "") == ("failed", "a 1: V-1")
    assert lists.read_audit(0, json.dumps({"dependencies": [known["dependencies"][1]]}), "")[0] == "ok"
    assert lists.read_audit(1, "", "no route to host") == (
        "not shown",
        "pip-audit could not ask: no route to host",
    )


def test_what_is_built_twice_is_the_same_holds_what_belongs_there_and_works(tmp_path):
    found = list(supply.packed(tmp_path, 1, is_long=False))

    assert not failed(found)
    assert len(found) == 6


def test_a_build_of_other_content_is_another_build(tmp_path):
    """The canary of the comparison of builds."""
    names = build.project_files()
    one, other = build.copied_twice(tmp_path, names)
    (other / "src/narrows/py.typed").chmod(0o644)
    (other / "src/narrows/py.typed").write_text("partial\n", encoding="utf-8")
    wheels = [build.built(folder, tmp_path / name, "wheel") for folder, name in ((one, "a"), (other, "b"))]

    assert build.sha256(wheels[0]) != build.sha256(wheels[1])


@pytest.mark.parametrize(
    ("lacking", "more", "fault"),
    [
        (None, None, None),
        ("narrows/py.typed", None, "missing: narrows/py.typed"),
        ("narrows-1.dist-info/licenses/LICENSE", None, "missing: licenses/LICENSE"),
        (None, "tests/test_a.py", "not of the package: tests/test_a.py"),
        (None, "narrows/__pycache__/a.pyc", "a cache: narrows/__pycache__/a.pyc"),
        (None, "narrows/test_a.py", "a cache: narrows/test_a.py"),
    ],
)
def test_what_does_not_belong_in_a_wheel_is_reported(lacking, more, fault):
    names = [name for name in [*WHEEL, *filter(None, [more])] if name != lacking]
    faults = build.faults_of_wheel(names, PROJECT)

    assert fault in faults if fault else not faults


def test_what_does_not_belong_in_an_sdist_is_reported():
    assert build.faults_of_sdist([*PROJECT, "PKG-INFO"], PROJECT) == []
    assert build.faults_of_sdist([*PROJECT[1:], "PKG-INFO", ".scratch/a"], PROJECT) == [
        "missing: LICENSE",
        "not of the project: .scratch/a",
    ]


def test_metadata_that_name_a_registry_are_reported():
    good = {"License-Expression": ["Apache-2.0"], "Requires-Python": [">=3.11"]}
    url = "Home, https://pypi" + ".org/project/narrows"

    assert build.faults_of_metadata(good, licence="Apache-2.0") == []
    assert build.faults_of_metadata(good | {"Project-URL": [url]}, licence="Apache-2.0") == [
        f"a registry's host: {url}"
    ]
    assert build.faults_of_metadata({}, licence="Apache-2.0") == [
        "License-Expression is None, not Apache-2.0",
        "Requires-Python is missing",
    ]


def test_narrows_works_with_every_optional_package_hidden():
    assert not failed(supply.optional((), 1, is_heavy=False))


def fault(tmp_path, hidden, code, needs=frozenset()):
    feature = without.Feature(name="a feature", words=("python", code), needs=needs)
    return without.fault_of(feature, tmp_path, without.hiding(tmp_path, hidden))


def test_a_hidden_package_is_found_by_nothing(tmp_path):
    code = """
import importlib.metadata, importlib.util
assert importlib.util.find_spec("pytest") is None
assert importlib.util.find_spec("click") is not None
assert "pytest" not in importlib.metadata.packages_distributions()
try:
    importlib.metadata.version("pytest")
except importlib.metadata.PackageNotFoundError:
    import subprocess, sys
    sys.exit(subprocess.run([sys.executable, "-c", "import pytest"], stderr=subprocess.PIPE).returncode != 1)
"""
    assert fault(tmp_path, ("pytest",), code) == ""


@pytest.mark.parametrize(
    ("code", "needs", "told"),
    [
        ("import pytest", frozenset(), "it breaks, exit 1"),
        ("raise SystemExit(3)", frozenset(), "it does not need them, and fails, exit 3"),
        ("raise SystemExit('no scipy')", frozenset({"pytest"}), "it does not say what to install, exit 1: no scipy"),
        ("pass", frozenset({"pytest"}), "it does not say what to install, exit 0"),
        (f"raise SystemExit({without.ADVICE!r})", frozenset({"pytest"}), ""),
    ],
)
def test_a_feature_that_breaks_without_a_package_is_reported(tmp_path, code, needs, told):
    found = fault(tmp_path, ("pytest",), code, needs)

    assert found.startswith(told) if told else found == ""
