"""What the READMEs tell people to type and to read is there."""

import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from metrics.common.paths import PROJECT

ROOMS = ("", "onprem_images", "lambda_function", "metrics", "tests")
READMES = [PROJECT / room / "README.md" for room in ROOMS]
PYTHON = ".venv/bin/python"
# Of other programs: they do what they say, and need what no test has.
NOT_OURS = ("python3 -m venv .venv", "git clean ", "export AWS_ENDPOINT_URL=")
MAX_LINES = 150  # of the first one


def commands() -> list[str]:
    """Each command of each block of shell, `&&` being between two of them."""
    texts = (path.read_text(encoding="utf-8") for path in READMES)
    blocks = (block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    lines = (line for block in blocks for line in block.splitlines())
    return sorted({one.strip() for line in lines for one in line.split("&&") if one.strip()})


def links() -> list[tuple[Path, str]]:
    return [
        (path, link)
        for path in READMES
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
        if not re.match(r"https?://", link)
    ]


def anchors(path: Path) -> set[str]:
    """Of the headings, as they are made where Markdown is shown."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readmes_have_commands():
    assert len(commands()) > 40


@pytest.mark.parametrize("command", commands())
def test_every_command_of_a_readme_is_one_that_its_script_takes(command, monkeypatch):
    """The scripts are asked to do it, up to where the work begins."""
    words = shlex.split(command, comments=True)
    if command.startswith(NOT_OURS):
        return
    if words[:2] == [PYTHON, "-m"]:
        assert words[2] == "pytest"
        return
    if words[:3] == [".venv/bin/pip", "install", "-r"]:
        assert (PROJECT / words[3]).is_file()
        return
    assert words[0] == PYTHON
    path = PROJECT / words[1]
    monkeypatch.setattr("sys.argv", [str(path), *words[2:]])
    spec = spec_from_file_location(path.stem, path)
    script = module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, path.stem, script)
    spec.loader.exec_module(script)
    asked = []
    monkeypatch.setattr(script, "run_script", lambda body, args: asked.append(args) or 0)
    assert script.main(words[2:]) == 0
    assert len(asked) == 1


@pytest.mark.parametrize(("path", "link"), links(), ids=lambda part: str(part)[-40:])
def test_every_link_of_a_readme_leads_somewhere(path, link):
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    assert target.exists()
    if anchor:
        assert anchor in anchors(target)


def test_the_first_readme_is_short():
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_LINES
