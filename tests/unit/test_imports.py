"""The project's rooms: imports go one way only, and no package imports a script."""

import ast
import subprocess
import sys

import pytest

from metrics.common.paths import PROJECT

PACKAGES = ("lambda_function", "metrics", "onprem_images")
ENTRY_POINTS = {"deploy", "embedded_cloud", "cloud"}


def modules() -> list:
    return sorted(path for name in PACKAGES for path in (PROJECT / name).rglob("*.py"))


def imported(source: str) -> set[str]:
    """Every module that the source names in an import, wherever that stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def test_imports_go_one_way_only():
    """The contracts are in pyproject.toml."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_package_imports_a_script(path):
    scripts = {script.stem for script in PROJECT.glob("*.py")}
    assert len(scripts) == 3
    assert not {name.partition(".")[0] for name in imported(path.read_text())} & scripts


def test_only_the_emulator_imports_moto():
    users = {path.parent.name for path in modules() if "moto" in roots(path.read_text())}
    assert users == {"emulator"}


def roots(source: str) -> set[str]:
    return {name.partition(".")[0] for name in imported(source)}


def test_what_is_beside_the_rooms_of_lambda_function_is_in_the_zip_or_documented():
    from lambda_function.stack.package import ZIP_MODULES

    found = {path.stem for path in (PROJECT / "lambda_function").glob("*.py")}
    assert found == {name.removesuffix(".py") for name in ZIP_MODULES} | ENTRY_POINTS


def test_metrics_itself_holds_no_module():
    assert [path.name for path in (PROJECT / "metrics").glob("*.py")] == ["__init__.py"]
