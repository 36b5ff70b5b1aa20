"""What a file is, by its content: the name that an error row gives it.

Only for files that the transform refuses or fails to decode, and for the TIFF directories behind
the first, in which cameras keep the picture itself. Standard library only: it runs in the zip.
"""

import struct
from collections.abc import Iterator

STARTS: tuple[tuple[int, bytes, str], ...] = (  # (offset, bytes there, name)
    (0, b"\x89PNG", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"8BPS\0\1", "Photoshop document (PSD)"),
    (0, b"8BPS\0\2", "Photoshop document (PSB)"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"II\xbc\1", "JPEG XR"),
    (0, b"FUJIFILMCCD-RAW", "camera raw file (RAF)"),
    (0, b"IIRO", "camera raw file (ORF)"),
    (0, b"IIRS", "camera raw file (ORF)"),
    (0, b"MMOR", "camera raw file (ORF)"),
    (0, b"IIU\0", "camera raw file (RW2)"),
    (0, b"FOVb", "camera raw file (X3F)"),
    (0, b"\0MRM", "camera raw file (MRW)"),
    (6, b"HEAPCCDR", "camera raw file (CRW)"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (0, b"\x76\x2f\x31\1", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"SDPX", "DPX"),
    (0, b"XPDS", "DPX"),
    (0, b"SIMPLE  =", "FITS (astronomical data)"),
    (128, b"DICM", "DICOM (a medical picture)"),
    (2048, b"PCD_", "Photo CD"),
    (0, b"P7\n", "PAM"),
    (0, b"PF\n", "PFM (floating-point colours)"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"gimp xcf", "GIMP document (XCF)"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"\xd7\xcd\xc6\x9a", "Windows metafile (WMF)"),
    (40, b" EMF", "Windows metafile (EMF)"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript (EPS)"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (0, b"\x1c\x03\x3c", "IPTC"),
    (8, b"AVI ", "video (AVI)"),
    (0, b"\x1a\x45\xdf\xa3", "video (WebM or Matroska)"),
    (0, b"\0\0\1\xba", "video (MPEG)"),
    (0, b"\0\0\1\xb3", "video (MPEG)"),
    (0, b"FLV\1", "video (FLV)"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video (WMV)"),
    (4, b"moov", "video (MOV)"),
    (4, b"mdat", "video (MOV)"),
    (0, b"OggS", "audio or video (Ogg)"),
    (0, b"ID3", "audio (MP3)"),
    (0, b"fLaC", "audio (FLAC)"),
    (8, b"WAVE", "audio (WAV)"),
    (0, b"PK\3\4", "ZIP archive or office document"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"BZh", "bzip2 archive"),
    (0, b"\xfd7zXZ", "xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard archive"),
    (0, b"7z\xbc\xaf", "7-Zip archive"),
    (0, b"Rar!", "RAR archive"),
    (257, b"ustar", "tar archive"),
    (0, b"\xd0\xcf\x11\xe0", "office document (OLE)"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"CDF\1", "NetCDF"),
    (0, b"GRIB", "GRIB"),
    (0, b"BUFR", "BUFR"),
    (0, b"SQLite", "SQLite database"),
    (0, b"\x7fELF", "program"),
    (0, b"MZ", "program"),
)
BRANDS = {  # of files in ISO's base media format, at byte 8; any other is a video
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"mif1", b"msf1", b"miaf"), "HEIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"), "HEIC"),
    b"crx ": "camera raw file (CR3)",
    b"qt  ": "video (MOV)",
    b"jxl ": "JPEG XL",
}
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RAW_OF_MAKE = {  # how the maker's name begins in the tag Make
    "NIKON": "NEF",
    "SONY": "ARW",
    "CANON": "CR2",
    "PENTAX": "PEF",
    "RICOH": "PEF",
    "SAMSUNG": "SRW",
    "HASSELBLAD": "3FR",
    "PHASE ONE": "IIQ",
    "LEAF": "MOS",
    "MAMIYA": "MEF",
    "OLYMPUS": "ORF",
    "OM DIGITAL": "ORF",
    "PANASONIC": "RW2",
    "LEICA": "RWL",
    "EASTMAN KODAK": "DCR",
    "KODAK": "DCR",
    "SEIKO EPSON": "ERF",
    "FUJIFILM": "RAF",
}
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, MAKE = 256, 257, 258, 259, 262, 271
SAMPLES, PLANAR, SUB_DIRECTORIES, SAMPLE_FORMAT, DNG_VERSION = 277, 284, 330, 339, 50706
NEW_SUBFILE_TYPE, SUBFILE_TYPE, REDUCED = 254, 255, 1
READ_TAGS = {
    *(WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, MAKE, SAMPLES, PLANAR, SUB_DIRECTORIES),
    *(SAMPLE_FORMAT, DNG_VERSION, NEW_SUBFILE_TYPE, SUBFILE_TYPE),
}
RAW_PHOTOMETRICS = {32803, 34892}  # colour filter array, linear raw
RAW_COMPRESSIONS = {32767, 32769, 32770, 32772, 34713, 65000, 65535}  # of ARW, SRW, NEF, DCR, PEF
PHOTOMETRIC_NAMES = {
    0: "white is zero",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32844: "LogL",
    32845: "LogLuv",
    32803: "CFA",
    34892: "LinearRaw",
}
SAMPLE_NAMES = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}  # as struct has them
MAX_PREAMBLE = 65536  # bytes of declarations and comments before what an XML is
MAX_TAG_VALUES = 64
MAX_TAGS = 20_000  # of all directories of a file together, so that a hostile one takes no time


def kind_of(data: bytes) -> str:
    """The name of the file's format, as well as its content tells."""
    if data.startswith(TIFF_STARTS):
        return _tiff_kind(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_kind(data)
    for offset, start, name in STARTS:
        if data.startswith(start, offset):
            return name
    if data[4:8] == b"ftyp":
        # The general brand, HEIF, says less than those that the file is compatible with.
        brands = [data[place : place + 4] for place in (8, *range(16, 48, 4))]
        first, *others = (BRANDS.get(name, "video (MP4)") for name in brands)
        exact = (kind for kind in others if kind in ("HEIC", "AVIF"))
        return next(exact, first) if first == "HEIF" else first
    return _text_kind(data) or f"an unknown format that begins with {data[:8].hex(' ')}"


def _jpeg_kind(data: bytes) -> str:
    """With what its frame header says of it, where that is out of the ordinary."""
    place, frames = 2, {0xC3: "lossless JPEG", 0xF7: "JPEG-LS"}
    while data[place : place + 1] == b"\xff" and place + 5 <= len(data):
        marker, length, depth = struct.unpack_from(">xBHB", data, place)
        if marker in FRAME_MARKERS:
            deep = "" if depth == 8 else f" of {depth} bits"
            return frames.get(marker, "JPEG") + deep
        place += 2 + length
    return "JPEG"


def _text_kind(data: bytes) -> str:
    """The kind of a text, or of an empty file; "" for anything else."""
    if not data:
        return "an empty file"
    start = data[:MAX_PREAMBLE].removeprefix(b"\xef\xbb\xbf")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        start = start.replace(b"\0", b"")[2:]
    text = start.lstrip().lower()
    if text.startswith(b"<"):
        names = {b"<svg": "SVG", b"<html": "HTML (a web page)", b"<!doctype html": "HTML"}
        found = {text.find(tag): name for tag, name in names.items() if tag in text}
        return found[min(found)] if found else "XML or HTML"
    is_text = all(byte >= 32 or byte in b"\t\n\f\r\b\x1b" for byte in start[:1024])
    return "text" if is_text else ""


# --- TIFF -----------------------------------------------------------------------------------------


def _tiff_kind(data: bytes) -> str:
    directories = list(_directories(data))
    if raw := camera_raw(data, directories):
        return raw
    if not directories:
        return "TIFF"
    first = directories[0]
    bits, samples = first.get(BITS, (1,)), first.get(SAMPLES, (1,))[0]
    photometric = first.get(PHOTOMETRIC, (0,))[0]
    facts = [
        PHOTOMETRIC_NAMES.get(photometric, f"photometric interpretation {photometric}"),
        f"{samples} x {max(bits)} bits",
        SAMPLE_NAMES.get(first.get(SAMPLE_FORMAT, (1,))[0], ""),
        "planar" if first.get(PLANAR) == (2,) else "",
        f"compression {first.get(COMPRESSION, (1,))[0]}",
    ]
    return f"TIFF ({', '.join(filter(None, facts))})"


def camera_raw(data: bytes, directories: list[dict] | None = None) -> str:
    """The name of a camera's raw file, "" when this TIFF is none."""
    directories = list(_directories(data)) if directories is None else directories
    if not directories:
        return ""
    first = directories[0]
    if DNG_VERSION in first:
        return "camera raw file (DNG)"
    of_maker = data[8:10] == b"CR" or any(
        directory.get(PHOTOMETRIC, (0,))[0] in RAW_PHOTOMETRICS
        or directory.get(COMPRESSION, (1,))[0] in RAW_COMPRESSIONS
        for directory in directories
    )
    if not of_maker:
        return ""
    make = bytes(first.get(MAKE, ())).decode("latin-1").upper()
    kind = next((kind for name, kind in RAW_OF_MAKE.items() if make.startswith(name)), "TIFF-based")
    return f"camera raw file ({'CR2' if data[8:10] == b'CR' else kind})"


def larger_picture(data: bytes) -> tuple[int, int] | None:
    """Size of the picture of which the first in this TIFF is a preview; None when it is none.

    Pages may differ in size: the first is a preview where it says so, or where the larger picture
    lies in a directory of its own below it.
    """
    directories = list(_directories(data))
    if not directories:
        return None
    first = directories[0]
    is_reduced = first.get(NEW_SUBFILE_TYPE, (0,))[0] & REDUCED or first.get(SUBFILE_TYPE) == (2,)
    sizes = [_size(d) for d in directories[1:] if is_reduced or d["below"]]
    largest = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    width, height = _size(first)
    return largest if largest[0] * largest[1] > width * height else None


def _size(directory: dict) -> tuple[int, int]:
    return directory.get(WIDTH, (0,))[0], directory.get(HEIGHT, (0,))[0]


def _directories(data: bytes) -> Iterator[dict]:
    """READ_TAGS of each directory of a TIFF, the first one first; `below` says that it is no page,
    but a part of one. Directories in loops, or outside the file, are left out."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count, pointer = (order + "Q",) * 2 if big else (order + "H", order + "I")
    entry_size, head = (20, 8) if big else (12, 2)
    todo = [(place, False) for place in _unpacked(pointer, data, 8 if big else 4)]
    seen, tags_left = set(), MAX_TAGS
    while todo and tags_left > 0:
        offset, below = todo.pop(0)
        if offset in seen or not (entries := _unpacked(count, data, offset)):
            continue
        seen.add(offset)
        end = offset + head + entries[0] * entry_size
        directory = {"below": below}
        for place in range(offset + head, min(end, len(data)), entry_size)[:tags_left]:
            directory |= _tag(data, order, pointer, place)
        tags_left -= entries[0] + 1
        yield directory
        todo += [(place, True) for place in directory.get(SUB_DIRECTORIES, ())]
        todo += [(place, below) for place in _unpacked(pointer, data, end)]


def _tag(data: bytes, order: str, pointer: str, place: int) -> dict[int, tuple]:
    """{tag: its values} of the entry at `place`; empty when it is not in READ_TAGS, or broken."""
    tag, kind = _unpacked(order + "HH", data, place) or (0, 0)
    if tag not in READ_TAGS or kind not in TYPES:
        return {}
    number = _unpacked(pointer, data, place + 4) or (0,)
    field = place + 4 + struct.calcsize(pointer)
    if number[0] * struct.calcsize(order + TYPES[kind]) > struct.calcsize(pointer):
        field = (_unpacked(pointer, data, field) or (len(data),))[0]  # it holds where they are
    values = _unpacked(f"{order}{min(number[0], MAX_TAG_VALUES)}{TYPES[kind]}", data, field)
    return {tag: values} if values else {}


def _unpacked(form: str, data: bytes, place: int) -> tuple:
    """The numbers at `place`; none where the file ends before."""
    try:
        return struct.unpack_from(form, data, place)
    except (struct.error, OverflowError):
        return ()
