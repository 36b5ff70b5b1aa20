"""Side files: what systems and programs put beside pictures by themselves, so no picture of a user.

The tables hold patterns of names, as a shell has them, by who makes such files. They are compared
without case, since what a NAS or Windows wrote may lie on any system. Only a whole name counts: in
`tmp/`, `my@eaDir/` or `thumbs.db.jpg` lie pictures like any other.
"""

import fnmatch
import re
from collections.abc import Iterable

# With all that is in them. `x/y` is a folder y in a folder x, where y alone may be a user's name.
FOLDERS = {
    "Synology": ("@eaDir", "#recycle", "#snapshot", ".SynologyWorkingDirectory"),
    "QNAP": (".@__thumb", "@__thumb", "@Recycle", "@Recently-Snapshot", ".streams"),
    "other file servers": (
        *(".recycle", ".snapshot", ".snapshots", "~snapshot", ".zfs", ".wdmc", "lost+found"),
    ),
    "Windows": (
        *("$RECYCLE.BIN", "RECYCLER/S-1-*", "System Volume Information", "found.[0-9][0-9][0-9]"),
    ),
    "macOS": (
        *(".AppleDouble", ".AppleDB", ".AppleDesktop", ".DocumentRevisions-V100", ".fseventsd"),
        *(".Spotlight-V100", ".TemporaryItems", ".Trash", ".Trashes", "__MACOSX"),
        *("Network Trash Folder", "Temporary Items"),
        *("*.photoslibrary/database", "*.photoslibrary/private", "*.photoslibrary/resources"),
    ),
    "Linux and Android": (".Trash-*", ".thumbnails"),
    "synchronisation": (
        *(".sync", ".stfolder", ".stversions", ".dropbox*"),
        *(".tmp.drivedownload", ".tmp.driveupload"),
    ),
    "version control": (".git", ".svn", ".hg"),
    "picture programs": (
        *("*.lrdata", "*.lrcat-data", ".picasaoriginals", ".dtrash"),
        *("CaptureOne/Cache", "CaptureOne/Settings*"),
    ),
}
FILES = {
    "Synology": ("*@SynoEAStream", "*@SynoResource"),
    "Windows": (
        "Thumbs.db",
        "Thumbs.db:encryptable",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
    ),
    "macOS": (
        *("._*", ".DS_Store", ".localized", "Icon\r", ".VolumeIcon.icns", ".apdisk"),
        *(".com.apple.timemachine.*", ".metadata_never_index"),
    ),
    "Linux and Android": (
        *(".directory", ".hidden", ".nomedia", ".thumbdata*", ".trashed-*", ".pending-*"),
        *(".nfs0000*", ".fuse_hidden*", ".smbdelete*", ".goutputstream-*"),
    ),
    "synchronisation": (
        *(".dropbox*", ".stignore", ".syncthing.*", "~syncthing~*", "*.!sync", ".sync_*.db*"),
        *(".owncloudsync.log*", ".nextcloudsync.log*"),
    ),
    "version control": (".git", ".gitignore", ".gitattributes", ".gitmodules"),
    "office programs": ("~$*", ".~lock.*#"),
    "partial downloads": (
        *("*.part", "*.partial", "*.filepart", "*.crdownload", "*.opdownload", "*.tmp"),
    ),
    "picture programs": (
        *("*.xmp", "*.lrcat", "*.lrcat-*", "*.lrcat.lock", ".picasa.ini", "Picasa.ini"),
        *("*.cos", "*.cot", "*.cof", "*.cop", "*.pp3", "*.dop", "*.on1", "*.acr", "*.vrd", "*.jbf"),
        *("*.nksc_param", "ZbThumbnail.info"),
        *(".BridgeSort", ".BridgeCache*", ".BridgeLabelsAndRatings"),
        *("digikam4.db*", "thumbnails-digikam.db*"),
    ),
    "cameras and phones": ("*.aae", "*.thm", "*.lrv"),
    "Google Takeout": ("*.json",),  # IMG_1.jpg.supplemental-metadata.json, and the album's own
}
LOOKED_UP = re.compile(r"[^*?\[]+|\*\.[^*?\[.]+")  # a whole name, or any name with one extension


class Patterns:
    """Patterns of which most are looked up, and the others are one regular expression: a folder may
    hold 100,000 names."""

    def __init__(self, patterns: Iterable[str]):
        patterns = list(patterns)
        self._looked_up = {p.lower(): p for p in patterns if LOOKED_UP.fullmatch(p)}
        self._others = [p for p in patterns if not LOOKED_UP.fullmatch(p)]
        expressions = (fnmatch.translate(pattern.lower()) for pattern in self._others)
        self._expression = re.compile("|".join(f"(?P<p{n}>{e})" for n, e in enumerate(expressions)))

    def match(self, name: str) -> str:
        """A pattern that `name` has; empty when it has none."""
        name = name.lower()
        _, dot, extension = name.rpartition(".")
        known = self._looked_up.get(name) or self._looked_up.get(f"*{dot}{extension}")
        if known or not (found := self._expression.match(name)):
            return known or ""
        return self._others[int(found.lastgroup[1:])]


def _all(table: dict[str, tuple[str, ...]], nested: bool = False) -> list[str]:
    return [p for patterns in table.values() for p in patterns if ("/" in p) == nested]


_FILES, _FOLDERS = Patterns(_all(FILES)), Patterns(_all(FOLDERS))
_INNER_FOLDERS = Patterns(_all(FOLDERS, nested=True))


def kind_of_folder(name: str, parent: str) -> str:
    """By which pattern a folder is no user's, as it is shown; empty when it may hold pictures."""
    pattern = _FOLDERS.match(name) or _INNER_FOLDERS.match(f"{parent}/{name}")
    return f"in {pattern}" if pattern else ""


def kind_of_file(name: str) -> str:
    """By which pattern a file is no picture, as it is shown; empty when it may be one."""
    return _FILES.match(name)
