"""The function's zip and its stack, for AWS and for the embedded cloud alike."""

import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

from lambda_function.cloud import stack_outputs

TEMPLATE = Path(__file__).with_name("template.yaml")
ZIP_MODULES = ("__init__.py", "handler.py", "image_transform.py", "metrics_log.py")
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # fixed, so that the same files give the same bytes


def build_zip() -> bytes:
    """The deployment package: the [zip] modules and the Pillow of this interpreter."""
    folder = Path(__file__).parent
    files = {f"{folder.name}/{name}": folder / name for name in ZIP_MODULES}
    pillow = metadata.distribution("Pillow")
    for file in pillow.files:
        if not {"..", "__pycache__"} & set(file.parts):
            files[file.as_posix()] = Path(pillow.locate_file(file))
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=1)
    return package.getvalue()


def create_stack(
    s3, cloudformation, stack: str, code_bucket: str, package: bytes, parameters: dict[str, str]
) -> dict[str, str]:
    """Create the stack with `package` as its code, wait for it, and return its outputs."""
    key = f"{hashlib.sha256(package).hexdigest()}.zip"
    s3.put_object(Bucket=code_bucket, Key=key, Body=package, ContentType="application/zip")
    parameters = {"CodeBucket": code_bucket, "CodeKey": key, **parameters}
    cloudformation.create_stack(
        StackName=stack,
        TemplateBody=TEMPLATE.read_text(),
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName=stack, WaiterConfig={"Delay": 1}
    )
    return stack_outputs(cloudformation, stack)
