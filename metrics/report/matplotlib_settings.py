"""matplotlib as the charts need it: its own defaults, and nothing of the user's settings.

Import this before anything else of matplotlib. When that is imported it reads ./matplotlibrc,
$MATPLOTLIBRC or the file in the user's configuration, and $MPLBACKEND, and fails on what it does
not understand: a notebook sets a back end that only its own kernel has.
"""

import contextlib
import os
from collections.abc import Iterator

FONT = "DejaVu Sans"  # comes with matplotlib
SETTINGS, OWN_FOLDER = "matplotlibrc", "mpl-data"


@contextlib.contextmanager
def _no_settings_found() -> Iterator[None]:
    """Within it no file of settings seems to exist, but for matplotlib's own."""
    exists, backend = os.path.exists, os.environ.get("MPLBACKEND")

    def exists_and_is_no_setting(path) -> bool:
        if path == os.environ.get("MATPLOTLIBRC"):
            return False
        folder, name = os.path.split(path) if isinstance(path, str) else ("", "")
        return (name != SETTINGS or os.path.basename(folder) == OWN_FOLDER) and exists(path)

    os.path.exists = exists_and_is_no_setting
    if backend is not None:
        os.environ["MPLBACKEND"] = "agg"
    try:
        yield
    finally:
        os.path.exists = exists
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


with _no_settings_found():
    import matplotlib


@contextlib.contextmanager
def default_settings() -> Iterator[None]:
    """Within it matplotlib has the settings that it comes with, whatever was set before."""
    own = {"backend": "agg", "font.family": [FONT]}  # to look for a back end loads styles, too
    backend = dict.get(matplotlib.rcParams, "backend")
    with matplotlib.rc_context():  # which gives back all but the back end
        matplotlib.rcParams.update({**matplotlib.rcParamsDefault, **own})
        try:
            yield
        finally:
            dict.update(matplotlib.rcParams, backend=backend)
