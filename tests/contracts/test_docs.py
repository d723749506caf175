"""The documents are true: their code runs, their commands parse, their links lead somewhere, pages are up to date."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import tiny_models
from contracts.markdown import blocks, commands, links, pages
from narrows.cli import VERBS
from narrows.cli import command as narrows_command

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGES = pages(ROOT)
WITH_PYTHON = [p for p in PAGES if "reference" not in p.parts and blocks(p.read_text(encoding="utf-8"), "python")]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# What an example is run with here, in a folder with a tiny model in it; most are run without anything.
SMALL = "out --width 32 --layers 1 --minutes 0.02 --device cpu --batch 1 --megabytes 1"
ARGUMENTS = {"wide_model.py": SMALL.split(), "load_and_write.py": ["tiny", "The strait"]}


def name_of(path: Path) -> str:
    """Return a test's name for a page."""
    return str(path.relative_to(ROOT))


def parse(arguments: list[str]) -> None:
    """Check that the verb exists and takes these options; nothing is run and no file is opened."""
    verb = narrows_command.get_command(click.Context(narrows_command), arguments[0])
    assert verb is not None, f"there is no verb {arguments[0]}"
    context = click.Context(verb, info_name=arguments[0])
    verb.make_parser(context).parse_args(arguments[1:])


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "\n".join(blocks(page.read_text(encoding="utf-8"), "python"))
    exec(compile(source, name_of(page), "exec"), {"__name__": "page"})  # noqa: S102 (our own pages)


def test_the_readme_shows_about_eight_lines_of_python() -> None:
    (block,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    assert 4 <= len([line for line in block.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_of_a_page_parse(page: Path) -> None:
    for arguments in commands(page.read_text(encoding="utf-8")):
        parse(arguments)


def test_a_wrong_option_in_a_page_is_found() -> None:
    (arguments,) = commands("```console\n$ narrows measure --speed 3\n```")
    with pytest.raises(click.NoSuchOption, match="--speed"):
        parse(arguments)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    missing = [target for target in links(page.read_text(encoding="utf-8")) if not (page.parent / target).exists()]
    assert not missing


def test_a_dead_link_is_found() -> None:
    assert links("see [this](how-to/none.md#part) and [that](https://example.org)") == ["how-to/none.md"]


def tool(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script of tools/."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", ["reference.py", "readme.py", "reliability.py"])
def test_generated_pages_are_up_to_date(script: str) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "tools" / script, "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_every_run_of_a_record_gets_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = {"part": "right", "name": "a | b", "asked": "all", "reached": "all", "status": "ok", "count": 20_000}
    run = {
        "commit": "abc",
        "machine": {"name": "a machine"},
        "created": "2026-01-02T03:04:05Z",
        "seed": 0,
        "scale": 1.0,
        "jobs": 2,
        "seconds": 120.0,
        "figures": [figure],
    }
    (tmp_path / "soak-cpu.json").write_text(json.dumps({"runs": [run, {**run, "commit": "def"}]}), encoding="utf-8")
    page = tool("reliability", monkeypatch).page
    text = "<!-- soak: made by tools/reliability.py -->\n<!-- end of soak -->"

    found = page(text, tmp_path)

    assert "2026-01-02, commit abc, a machine, 2 processes, seed 0, scale 1 (1 is the long form), 2 minutes:" in found
    assert found.count("| ok | right: a \\| b | all | all | 20,000 |") == 2
    assert "No long run is recorded" in page(text, tmp_path / "empty")


def test_a_page_that_is_out_of_date_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "api.md"
    page.write_text("old", encoding="utf-8")
    assert tool("reference", monkeypatch).write_or_check({page: "new"}, ["--check"]) == 1
    assert f"{page} is out of date: run `make docs`" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_ends_in_an_example_that_parses(verb: str) -> None:
    found = narrows_command.get_command(click.Context(narrows_command), verb)
    assert found is not None
    text = found.get_help(click.Context(found, info_name=verb, terminal_width=100, max_content_width=100))
    examples = re.findall(rf"^ +narrows ({verb}\b.*)$", text, re.MULTILINE)
    assert examples, f"the help of {verb} shows no line `narrows {verb} ...`"
    for line in examples:
        parse(line.split())
    assert "\\b" not in text


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    if path.name == "load_and_write.py":
        tiny_models.folder(tiny_models.llama(), tmp_path / "tiny")
    command = [sys.executable, path, *ARGUMENTS.get(path.name, [])]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout
