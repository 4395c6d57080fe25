"""Broken, odd and hostile inputs, made for each test and the same each time."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE = (17, 13)
FORMATS = {
    "png": {"format": "PNG"}, "jpg": {"format": "JPEG"}, "progressive.jpg": {"format": "JPEG", "progressive": True},
    "bmp": {"format": "BMP"}, "gif": {"format": "GIF"}, "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"}, "jpeg.tiff": {"format": "TIFF", "compression": "jpeg"},
    "ppm": {"format": "PPM"}, "webp": {"format": "WEBP"}, "lossless.webp": {"format": "WEBP", "lossless": True},
}  # fmt: skip


def pixels(mode="RGB", size=SIZE, seed=0):
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(array, "RGBA").convert(mode) if mode != "RGBA" else Image.fromarray(array)


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def damaged(content, *, cuts, flips, seed=0):
    """Yield the content cut at several lengths, then with one bit flipped at several places."""
    yield from (content[: round(len(content) * cut / cuts)] for cut in range(cuts))
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(content), flips):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        yield bytes(flipped)


def damaged_images(*, cuts, flips):
    """Yield names and contents of damaged images of every format."""
    for suffix, options in FORMATS.items():
        whole = encoded(pixels(), **options)
        for index, content in enumerate(damaged(whole, cuts=cuts, flips=flips)):
            yield f"{suffix.replace('.', '-')}-{index:03d}.{suffix.rpartition('.')[2]}", content


def huge_header():
    """Return a small PNG whose header promises 60,000 × 60,000 pixels."""
    content = bytearray(encoded(pixels("L"), format="PNG"))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def bomb(side=14_000):
    """Return a small PNG of a black square with this many pixels on each side."""
    packer = zlib.compressobj(1)
    row = bytes(side + 1)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def odd_images():
    """Return names (bytes, not all UTF-8) and contents. Images whose name begins with `ok` can be scored."""
    deep = np.random.default_rng(5).integers(0, 2**16, (13, 17), dtype=np.uint16)
    frames = [pixels(seed=seed) for seed in range(3)]
    return {
        b"ok-1x1.png": encoded(pixels(size=(1, 1)), format="PNG"),
        b"ok-20000x1.png": encoded(pixels(size=(20_000, 1)), format="PNG"),
        b"ok-1x20000.jpg": encoded(pixels(size=(1, 20_000)), format="JPEG"),
        b"ok-cmyk.jpg": encoded(pixels("CMYK"), format="JPEG"),
        b"ok-cmyk.tif": encoded(pixels("CMYK"), format="TIFF"),
        b"ok-16-bit.png": encoded(Image.fromarray(deep), format="PNG"),
        b"ok-16-bit.tif": encoded(Image.fromarray(deep), format="TIFF"),
        b"ok-palette.png": encoded(pixels("P"), format="PNG"),
        b"ok-palette-transparent.png": encoded(pixels("P"), format="PNG", transparency=bytes(range(256))),
        b"ok-bilevel.png": encoded(pixels("1"), format="PNG"),
        b"ok-alpha.png": encoded(pixels("LA"), format="PNG"),
        b"ok-animated.gif": encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:]),
        b"ok-animated.webp": encoded(frames[0], format="WEBP", save_all=True, append_images=frames[1:]),
        b"ok-pages.tif": encoded(frames[0], format="TIFF", save_all=True, append_images=frames[1:]),
        b"ok-a-png-called.jpg": encoded(pixels(), format="PNG"),
        b"ok-caf\xe9-\xff.png": encoded(pixels(), format="PNG"),
        "ok-grün 🙂, \"q\"\n.png".encode(): encoded(pixels(), format="PNG"),
        b"float.tif": encoded(Image.fromarray(np.ones((13, 17), np.float32)), format="TIFF"),
        b"zero-bytes.png": b"",
        b"text.png": b"id,label\n1,2\n",
        b"postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n",
        b"html.png": b"<!doctype html><title>404</title>",
        b"huge-header.png": huge_header(),
    }  # fmt: skip


def write_odd_images(folder):
    """Write the odd images, and names without a file behind them; return the number of inputs."""
    names = odd_images()
    for name, content in names.items():
        (folder / os.fsdecode(name)).write_bytes(content)
    os.mkfifo(folder / "pipe.png")
    (folder / "nowhere.png").symlink_to(folder / "gone")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    return len(names) + 3


def containers():
    """Return the whole content of every container by its name, each with three inputs of 13 × 17 pixels."""
    pngs = [encoded(pixels(seed=seed), format="PNG") for seed in range(3)]
    arrays = np.stack([np.asarray(pixels(seed=seed)).transpose(2, 0, 1) for seed in range(3)])
    idx = struct.pack(">HBB4I", 0, 8, 4, *arrays.shape) + arrays.tobytes()
    tar = _tar(pngs)
    table = pa.table({"image": pa.array(pngs, pa.binary()), "label": [0, 1, 0]})
    numbers = pa.table(
        {"features": pa.array(arrays.reshape(3, -1).astype(np.float32).tolist(), pa.list_(pa.float32()))}
    )
    return {
        "x.zip": _zip(pngs), "x.tar": tar, "x.tar.gz": gzip.compress(tar, mtime=0), "x.idx": idx,
        "x.idx.gz": gzip.compress(idx, mtime=0), "x.npy": _saved(np.save, arrays), "x.npz": _saved(np.savez, arrays),
        "packed.npz": _saved(np.savez_compressed, arrays), "x.parquet": _parquet(table),
        "numbers.parquet": _parquet(numbers), "x.arrow": _arrow(table, pa.ipc.new_stream),
        "x.feather": _arrow(table, pa.ipc.new_file), "numbers.arrow": _arrow(numbers, pa.ipc.new_stream),
        "packed.feather": _arrow(table, pa.ipc.new_file, options=pa.ipc.IpcWriteOptions(compression="zstd")),
    }  # fmt: skip


def _zip(contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, content in enumerate(contents):
            archive.writestr(zipfile.ZipInfo(f"{index}.png"), content)
    return buffer.getvalue()


def _tar(contents):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for index, content in enumerate(contents):
            info = tarfile.TarInfo(f"{index}.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _saved(save, array):
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


def _parquet(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2)
    return buffer.getvalue()


def _arrow(table, new, **options):
    buffer = io.BytesIO()
    with new(buffer, table.schema, **options) as writer:
        writer.write_table(table)
    return buffer.getvalue()
