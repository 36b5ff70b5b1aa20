"""The function's zip: what is in it, for whom it runs, and that it repeats."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import registry_is_silent

from lambda_function.embedded_cloud import link_runtime_packages
from lambda_function.stack import package
from lambda_function.stack.package import (
    THIS_PYTHON,
    build_zip,
    check_limits,
    download_wheel,
    host_architecture,
    installed_files,
    package_key,
    pillow_files,
)
from metrics.common.cli import UserError

OTHER_PYTHON = "3.13" if THIS_PYTHON != "3.13" else "3.12"
MACHINE_OF_ELF = {"x86_64": 62, "arm64": 183}  # field e_machine of an ELF file


def answered(ask, *arguments):
    """What `ask` returns; the test is skipped where the package registry does not answer."""
    try:
        return ask(*arguments)
    except UserError as error:
        if registry_is_silent(str(error)):
            pytest.skip(f"needs the package registry, which does not answer: {error}")
        raise


def own_zip() -> bytes:
    return build_zip((), host_architecture(), for_this_machine=True)


def unpacked(zip_bytes: bytes, folder: Path) -> Path:
    zipfile.ZipFile(io.BytesIO(zip_bytes)).extractall(folder)
    return folder


def import_handler(task: Path, runtime: Path) -> subprocess.CompletedProcess:
    """Import the handler with the task's folder, the runtime's packages, and nothing else."""
    code = (
        f"import sys; sys.path[:0] = [{str(task)!r}]; sys.path.append({str(runtime)!r})\n"
        "from lambda_function import handler; import PIL\n"
        "print(handler.__file__, PIL.__file__)"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def boto3_folder(tmp_path_factory) -> Path:
    return link_runtime_packages(tmp_path_factory.mktemp("runtime") / "packages")


def test_the_zip_holds_the_zip_modules_and_pillow_and_repeats_to_the_byte():
    first = own_zip()
    assert first == own_zip()
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert {n for n in names if n.startswith("lambda_function/")} == {
        f"lambda_function/{module}.py"
        for module in (
            *("__init__", "events", "handler", "image_transform", "pixel_meaning", "file_kinds"),
            *("limits", "metrics_log", "metrics_writer"),
        )
    }
    assert any(name.startswith("PIL/_imaging.") for name in names)
    assert {name.split("/")[0] for name in names} <= {
        *("lambda_function", "PIL", "pillow.libs", "pillow-13.0.0.dist-info")
    }


def test_the_zip_is_named_by_its_bytes():
    assert package_key(b"a") != package_key(b"b")
    assert package_key(own_zip()) == package_key(own_zip())
    assert package_key(b"a").endswith(".zip")


def test_another_module_gives_another_zip(monkeypatch):
    before = own_zip()
    monkeypatch.setattr(package, "ZIP_MODULES", (*package.ZIP_MODULES, "cloud.py"))
    assert package_key(own_zip()) != package_key(before)


def test_the_handler_imports_from_the_unpacked_zip_alone(tmp_path, boto3_folder):
    task = unpacked(own_zip(), tmp_path / "task")
    done = import_handler(task, boto3_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(task / "lambda_function" / "handler.py"),
        str(task / "PIL" / "__init__.py"),
    ]
    (task / "lambda_function" / "metrics_log.py").unlink()
    assert (
        "No module named 'lambda_function.metrics_log'" in import_handler(task, boto3_folder).stderr
    )


def test_a_zip_for_another_python_alone_does_not_run_here_and_with_this_one_it_does(
    tmp_path, boto3_folder
):
    architecture = host_architecture()
    alone = answered(build_zip, (OTHER_PYTHON,), architecture, False)
    failed = import_handler(unpacked(alone, tmp_path / "alone"), boto3_folder)
    assert "cannot import name '_imaging'" in failed.stderr
    both = answered(build_zip, (OTHER_PYTHON,), architecture, True)
    done = import_handler(unpacked(both, tmp_path / "both"), boto3_folder)
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(io.BytesIO(both)).namelist())
    assert names > set(zipfile.ZipFile(io.BytesIO(alone)).namelist())


@pytest.mark.parametrize("architecture", MACHINE_OF_ELF)
def test_pillow_is_that_of_the_python_and_the_architecture(architecture):
    files = answered(pillow_files, OTHER_PYTHON, architecture)
    (name,) = [name for name in files if name.startswith("PIL/_imaging.cpython")]
    assert f"cpython-{OTHER_PYTHON.replace('.', '')}-" in name
    assert int.from_bytes(files[name][18:20], "little") == MACHINE_OF_ELF[architecture]
    assert b"\nVersion: 13.0.0\n" in files["pillow-13.0.0.dist-info/METADATA"]


def test_the_installed_wheel_gives_the_files_of_the_downloaded_one(tmp_path):
    from importlib import metadata

    wheel = answered(download_wheel, "Pillow", THIS_PYTHON, host_architecture(), tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        needed = [name for name in archive.namelist() if package.is_needed(name)]
        assert installed_files(metadata.distribution("Pillow")) == {
            name: archive.read(name) for name in needed
        }


def test_nothing_is_downloaded_for_what_is_installed(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(package, "download_wheel", refuse)
    own = build_zip((THIS_PYTHON,), host_architecture(), for_this_machine=False)
    assert own == own_zip()


def test_a_wheel_that_is_not_to_be_had_is_one_line_with_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match=r"no wheel of Pillow .* for Python 3.2 on arm64") as caught:
        build_zip(("3.2",), "arm64", for_this_machine=False)
    assert "\n" not in str(caught.value)
    assert "--python" in str(caught.value)


@pytest.mark.parametrize(
    ("zipped", "unzipped", "named"),
    [(50_000_001, 0, "50,000,001 bytes zipped"), (0, 250_000_001, "250,000,001 bytes unzipped")],
)
def test_a_package_beyond_the_limits_of_lambda_is_refused(zipped, unzipped, named):
    check_limits(50_000_000, 250_000_000)
    with pytest.raises(UserError, match=named):
        check_limits(zipped, unzipped)


def test_the_limits_are_checked_when_a_zip_is_built(monkeypatch):
    monkeypatch.setattr(package, "LIMIT_UNZIPPED", 1_000_000)
    with pytest.raises(UserError, match="bytes unzipped"):
        own_zip()
