"""The function's zip: the [zip] modules and Pillow, for a Python version and an architecture.

Pillow comes from the wheel of the installed version, so that both arms decode alike: from this
interpreter's own when that is the wheel that was asked for, else it is downloaded with pip. The
same inputs give the same bytes, and the zip is named by their hash.
"""

import hashlib
import io
import platform
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

from metrics.common.cli import UserError

ZIP_MODULES = (
    *("__init__.py", "handler.py", "events.py", "metrics_writer.py"),
    *("image_transform.py", "pixel_meaning.py", "file_kinds.py", "limits.py", "metrics_log.py"),
)
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # fixed, so that the same files give the same bytes
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Pillow 13 has wheels for glibc 2.27 and 2.28 only; asked for manylinux2014 alone, pip quietly
# gives an older Pillow. Lambda has glibc 2.34 from python3.12 on, and 2.26 before.
GLIBCS = ("manylinux_2_28", "manylinux_2_27", "manylinux2014")
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}  # Lambda's name -> the wheel's
LIMIT_ZIPPED, LIMIT_UNZIPPED = 50_000_000, 250_000_000  # bytes; Lambda's, read strictly


def host_architecture() -> str:
    """This machine's processor in Lambda's words."""
    return "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x86_64"


def build_zip(pythons: tuple[str, ...], architecture: str, for_this_machine: bool) -> bytes:
    """The deployment package, with Pillow for each of `pythons` (such as "3.13") in Lambda, and
    for this interpreter, whatever its platform. They lie side by side: what differs has version
    and platform in its name. Raises UserError when a wheel is not to be had, or when the package
    is beyond Lambda's limits."""
    folder = Path(__file__).parents[1]
    files = {f"{folder.name}/{name}": (folder / name).read_bytes() for name in ZIP_MODULES}
    for python in pythons:
        files |= pillow_files(python, architecture)
    if for_this_machine:
        files |= installed_files(metadata.distribution("Pillow"))
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=1)
    check_limits(len(package.getvalue()), sum(map(len, files.values())))
    return package.getvalue()


def check_limits(zipped: int, unzipped: int) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
    for size, limit, what in (
        (zipped, LIMIT_ZIPPED, "zipped"),
        (unzipped, LIMIT_UNZIPPED, "unzipped"),
    ):
        if size > limit:
            raise UserError(
                f"the function's package has {size:,} bytes {what}, and Lambda takes {limit:,}; "
                "deploy for fewer Python versions, or with a smaller Pillow"
            )


def package_key(package: bytes) -> str:
    return f"{hashlib.sha256(package).hexdigest()}.zip"


def pillow_files(python: str, architecture: str) -> dict[str, bytes]:
    """What a function needs of Pillow's wheel, by name."""
    installed = metadata.distribution("Pillow")
    if wheel_tags(python, architecture) & set((installed.read_text("WHEEL") or "").splitlines()):
        return installed_files(installed)
    with tempfile.TemporaryDirectory(prefix="pillow-") as folder:
        wheel = download_wheel("Pillow", python, architecture, Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if is_needed(name)]
            return {name: archive.read(name) for name in names}


def wheel_tags(python: str, architecture: str) -> set[str]:
    """Lines of a wheel's WHEEL file that say that Lambda can run it."""
    abi, machine = f"cp{python.replace('.', '')}", MACHINES[architecture]
    return {f"Tag: {abi}-{abi}-{glibc}_{machine}" for glibc in GLIBCS}


def installed_files(package: metadata.Distribution) -> dict[str, bytes]:
    paths = {file.as_posix(): package.locate_file(file) for file in package.files}
    return {name: Path(path).read_bytes() for name, path in paths.items() if is_needed(name)}


def is_needed(name: str) -> bool:
    """Not the records of an installation, which differ from machine to machine, nor type hints."""
    path = PurePosixPath(name)
    in_records = path.parts[0].endswith(".dist-info") and path.name not in ("METADATA", "LICENSE")
    is_hint = path.suffix == ".pyi" or path.name == "py.typed"
    is_folder = name.endswith("/")
    return not (in_records or is_hint or is_folder or {"..", "__pycache__"} & set(path.parts))


def download_wheel(name: str, python: str, architecture: str, folder: Path) -> Path:
    """The wheel of the installed version of a package, from the index that pip is set up for."""
    version = metadata.version(name)
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--no-deps", "--implementation", "cp", "--python-version", python),
        *(f"--platform={glibc}_{MACHINES[architecture]}" for glibc in GLIBCS),
        *("--dest", str(folder), f"{name}=={version}"),
    ]
    done = subprocess.run(  # nosec B603 # pip, no shell; name and version are the installed ones
        command,
        capture_output=True,
        text=True,
        errors="backslashreplace",  # in the locale's encoding
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = " ".join(done.stderr.split()) or "pip gave no wheel"
        raise UserError(
            f"no wheel of {name} {version} for Python {python} on {architecture}: {reason}; "
            "check the network, or deploy for another version with --python"
        )
    return wheels[0]
