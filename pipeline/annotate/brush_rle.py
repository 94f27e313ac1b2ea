"""Convert masks to the run lengths of Label Studio's brush and back: bytes of RGBA pixels, row by row, in a stream of bits.

The stream is that of @thi.ng/rle-pack: 32 bits of length, 5 of word size, four times 4 of run sizes; then runs, each with a bit that says whether one word
is repeated, 2 bits that choose the run size, the length less 1, and the words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import UsageError
from ..decisions.rle import LARGEST_PIXELS, Mask

CHANNELS = 4
WORD_BITS = 8
RUN_BITS = (3, 4, 8, 16)
SET = 255


def encode_brush(mask: Mask) -> list[int]:
    """Bytes of the stream of a mask `(height, width)`, set pixels 255 in all four channels."""
    flat = np.asarray(mask, bool).ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [len(flat)]])
    pieces = [f"{CHANNELS * len(flat):032b}{WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    longest = 1 << RUN_BITS[-1]
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        word, left = f"{SET if flat[start] else 0:0{WORD_BITS}b}", CHANNELS * (stop - start)
        while left:
            length = min(left, longest)
            choice = next(place for place, size in enumerate(RUN_BITS) if length <= 1 << size)
            pieces.append(f"1{choice:02b}{length - 1:0{RUN_BITS[choice]}b}{word}")
            left -= length
    text = "".join(pieces)
    bits = np.frombuffer(text.encode("ascii"), np.uint8) - ord("0")
    return np.packbits(bits).tolist()


def decode_brush(stream: Sequence[int], height: int, width: int) -> Mask:
    """The mask of a stream: pixels whose last channel (alpha) is not 0.

    Raises:
        UsageError: For a stream that ends too early, runs over its length, or has not the image's size.
    """
    if not 1 <= height * width <= LARGEST_PIXELS:
        raise UsageError(
            f"a brush mask of {width} x {height} pixels is outside the limit of 1 to {LARGEST_PIXELS:,} pixels"
        )
    if any(type(byte) is not int or not 0 <= byte < 256 for byte in stream):
        raise UsageError("the rle of a brush mask is a list of bytes, whole numbers from 0 to 255")
    bits = np.unpackbits(np.array(stream, np.uint8)).tobytes().translate(_DIGITS).decode("ascii")
    place = 0

    def read(count: int) -> int:
        nonlocal place
        word = bits[place : place + count]
        if len(word) < count:
            raise UsageError("the rle of a brush mask ends too early")
        place += count
        return int(word, 2)

    total = read(32)
    if total != CHANNELS * height * width:
        raise UsageError(
            f"the rle of a brush mask holds {total:,} values, its image of {width} x {height} pixels has {CHANNELS * height * width:,}"
        )
    word_bits, run_bits = read(5) + 1, [read(4) + 1 for _ in range(4)]
    values, filled = np.zeros(total, bool), 0
    while filled < total:
        repeated, length = read(1), read(run_bits[read(2)]) + 1
        if filled + length > total:
            raise UsageError("a run of a brush mask is longer than its image")
        if repeated:
            values[filled : filled + length] = read(word_bits) != 0
        else:
            values[filled : filled + length] = [read(word_bits) != 0 for _ in range(length)]
        filled += length
    return values.reshape(height, width, CHANNELS)[..., -1].copy()


_DIGITS = bytes([ord("0"), ord("1"), *range(2, 256)])
