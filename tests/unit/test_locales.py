"""Keys, outputs and files are the same in every locale; what its terminal lacks is escaped."""

import csv
import json
import os
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest
from conftest import copy_project, jpeg
from processes import LIMIT_S

LOCAL, PIPELINE, UPLOAD = (
    *("onprem_images/local_image_proc.py", "master_pipeline.py", "upload_images_s3.py"),
)
LOCALES = {  # encoding -> a locale that uses it
    "ANSI_X3.4-1968": "C",
    "KOI8-R": "ru_RU",
    "EUC-JP": "ja_JP",
    "ISO-8859-1": "de_DE",
    "GB18030": "zh_CN",
    "BIG5-HKSCS": "zh_HK",  # reads some bytes so that they cannot be written again
}
NAMES = [
    *("plain.jpg", "café.jpg", unicodedata.normalize("NFD", "naïve.jpg"), "写真.jpg", "😀.jpg"),
    *("папка/файл 1.jpg", "\u0812\u78a5\u0ba1\u4f7b.jpg"),
]
ONE_WORKER = ("--workers", "1", "--run-id", "r")
BAD = "not a picture ü.jpg"
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems are UTF-8 always")


@pytest.fixture(scope="module")
def locales(tmp_path_factory) -> dict[str, dict[str, str]]:
    """The variables that choose a locale, by its encoding: those that this system can make."""
    folder = tmp_path_factory.mktemp("locales")
    python = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LOCPATH": str(folder)}
    made = {"ANSI_X3.4-1968": python | {"LC_ALL": "C"}}
    if shutil.which("localedef") and Path("/usr/share/i18n/charmaps").is_dir():
        for encoding in LOCALES.keys() - made.keys():
            name = f"{LOCALES[encoding]}.{encoding}"
            command = ["localedef", "-i", LOCALES[encoding], "-f", encoding, str(folder / name)]
            subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
            made[encoding] = python | {"LC_ALL": name}
    return made


@pytest.fixture(params=LOCALES)
def other_locale(request, locales) -> tuple[str, dict[str, str]]:
    if request.param not in locales:
        pytest.skip("no locale definitions: apt-get install locales")
    return request.param, locales[request.param]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("фото é")
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(jpeg(60 + number))
    (folder / BAD).write_bytes(b"no picture")
    return folder


def run(project: Path, script: str, *arguments: str | Path, python=(), **variables: str):
    """Run a script with flags of its own, and of Python's."""
    return subprocess.run(
        [sys.executable, *python, str(project / script), *map(str, arguments)],
        cwd=project,
        env={**os.environ, **variables},
        capture_output=True,
        timeout=LIMIT_S,
    )


def rows_of(path: Path) -> set[tuple[str, ...]]:
    with path.open(encoding="utf-8", newline="") as file:
        columns = ("image_key", "orig_size", "new_size", "status", "error", "output_sha256")
        return {tuple(row[name] for name in columns) for row in csv.DictReader(file)}


def results_on_prem(project: Path) -> tuple:
    """Rows, manifest, and outputs by the bytes of their names."""
    folder = os.fsencode(project / "onprem_images" / "output_local")
    paths = [os.path.join(top, name) for top, _, names in os.walk(folder) for name in names]
    return (
        rows_of(project / "onprem_images/metrics/local_metrics.csv"),
        json.loads((project / "metrics/manifest.json").read_text(encoding="utf-8")),
        {os.path.relpath(path, folder): Path(os.fsdecode(path)).read_bytes() for path in paths},
    )


@pytest.fixture(scope="module")
def in_utf_8(tmp_path_factory, pictures) -> tuple:
    project = copy_project(tmp_path_factory.mktemp("utf-8") / "project")
    done = run(project, LOCAL, *ONE_WORKER, "--images", pictures, LC_ALL="C.UTF-8")
    assert done.returncode == 0, done.stderr
    return results_on_prem(project)


@pytest.mark.slow
@needs_linux
def test_keys_and_outputs_are_those_of_utf_8_in_every_locale(
    checkout, pictures, in_utf_8, other_locale
):
    encoding, variables = other_locale
    done = run(checkout, LOCAL, *ONE_WORKER, "--images", pictures, **variables)
    assert done.returncode == 0, done.stderr
    assert results_on_prem(checkout) == in_utf_8
    assert {key for key, *_ in in_utf_8[0]} == {*NAMES, BAD}
    assert f"'{BAD}'\n".encode(encoding, "backslashreplace") in done.stderr


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("encoding", ["ANSI_X3.4-1968", "EUC-JP"])
def test_a_whole_run_in_a_locale_that_lacks_its_names_is_that_of_utf_8(
    tmp_path, pictures, in_utf_8, locales, encoding
):
    if encoding not in locales:
        pytest.skip("no locale definitions: apt-get install locales")
    project = copy_project(tmp_path / "projet é")  # a name that both can turn back into its bytes
    flags = (*ONE_WORKER, "--images", pictures, "--bundle", tmp_path / "фото.zip")
    done = run(project, PIPELINE, *flags, **locales[encoding])
    assert done.returncode == 0, done.stderr
    assert results_on_prem(project) == in_utf_8
    assert rows_of(project / "metrics/lambda_metrics.csv") == in_utf_8[0]
    record = json.loads((project / "metrics/run.json").read_text(encoding="utf-8"))
    assert str(pictures) in record["command_line"]
    assert BAD in (project / "metrics/report.html").read_text(encoding="utf-8")
    assert zipfile.is_zipfile(tmp_path / "фото.zip")


@needs_linux
def test_a_name_that_is_not_utf_8_is_refused_though_the_locale_could_read_it(checkout, locales):
    if "ISO-8859-1" not in locales:
        pytest.skip("no locale definitions: apt-get install locales")
    name = os.path.join(os.fsencode(checkout), b"images_to_upload", b"caf\xe9.jpg")
    Path(os.fsdecode(name)).write_bytes(jpeg())
    done = run(checkout, LOCAL, **locales["ISO-8859-1"])
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"error: b'caf\\xe9.jpg' is not UTF-8; rename it\n"


@needs_linux
def test_what_the_terminal_lacks_is_escaped_and_what_it_has_is_in_its_encoding(
    checkout, locales, embedded
):
    if "KOI8-R" not in locales:
        pytest.skip("no locale definitions: apt-get install locales")
    (checkout / "images_to_upload" / "файл é.jpg").write_bytes(jpeg())
    flags = ("--dry-run", "--endpoint-url", embedded.endpoint_url)
    done = run(checkout, UPLOAD, *flags, **locales["KOI8-R"])
    assert "/input/файл \\xe9.jpg\n".encode("koi8-r") in done.stdout
    chosen = run(checkout, UPLOAD, *flags, **locales["KOI8-R"], PYTHONIOENCODING="utf-8")
    assert "/input/файл é.jpg\n".encode() in chosen.stdout  # what a user chose counts


@needs_linux
@pytest.mark.parametrize("flags", [["-X", "utf8=0"], ["-I"]], ids=" ".join)
def test_the_workers_read_names_as_the_script_does_whatever_flags_python_got(
    checkout, locales, flags
):
    (checkout / "images_to_upload" / "é.jpg").write_bytes(jpeg())
    done = run(checkout, LOCAL, "--workers", "1", python=flags, **locales["ANSI_X3.4-1968"])
    assert done.returncode == 0, done.stderr
    assert (checkout / "onprem_images" / "output_local" / "é.jpg").exists()
