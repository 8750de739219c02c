"""Random draws without a state: every one is a pure function of (seed, position in the run).

A sample then looks the same whichever worker, rank or restart makes it. The source of randomness is BLAKE2b (RFC 7693):
the same numbers on every machine and version, about a microsecond a call, and no generator to build or to carry along.
"""

import hashlib
import struct

_U64 = (1 << 64) - 1


def random_words(purpose, seed, counter, count):
    """``count`` (at most 8) independent 64-bit words, a pure function of the other arguments.

    Args:
        purpose (bytes): At most 16 bytes; another purpose gives unrelated words for the same seed and counter.
        seed (int): Any integer; taken modulo 2**64.
        counter (int): The position in the run, the epoch, …; taken modulo 2**64.

    Returns:
        tuple[int]: ``count`` integers, uniform on [0, 2**64).
    """
    data = struct.pack('<QQ', seed & _U64, counter & _U64)
    return struct.unpack(f'<{count}Q', hashlib.blake2b(data, digest_size=8 * count, person=purpose).digest())


def crop_and_flips(seed, position, num_tops, num_lefts):
    """Where the sample at a position of the run is cropped, and how it is turned.

    Args:
        seed (int): Seed of the run.
        position (int): Position in the run's stream of samples.
        num_tops, num_lefts (int): Number of possible crop origins, vertically and horizontally.

    Returns:
        tuple: ``top`` uniform on [0, num_tops), ``left`` uniform on [0, num_lefts), and three booleans, each true with
        probability one half: horizontal flip, vertical flip, transposition, as BasicSR's ``augment`` draws them.
    """
    top, left, bits = random_words(b'lkdn crop', seed, position, 3)
    # The high half of a 128-bit product: uniform to within num_tops / 2**64.
    return top * num_tops >> 64, left * num_lefts >> 64, bool(bits & 1), bool(bits & 2), bool(bits & 4)
