"""tqdm, whose bars show progress, without settings from TQDM_* variables.

It reads them when it is imported, and a value that it does not understand would end the script.
"""

import os


def _import_tqdm() -> type:
    settings = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("TQDM_")}
    try:
        from tqdm import tqdm

        return tqdm
    finally:
        os.environ.update(settings)


tqdm = _import_tqdm()
