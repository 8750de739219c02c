"""The structure of a PNG file, checked without decoding it."""

import zlib

SIGNATURE = b'\x89PNG\r\n\x1a\n'


def png_chunks(data):
    """The kinds of a PNG's chunks, after all of its bytes were compared with the checksums in it.

    Args:
        data (memoryview): The whole file.

    Returns:
        list[bytes]: ``[b'IHDR', ..., b'IEND']``.

    Raises:
        ValueError: What is wrong, to be read behind the file's name: ``'is cut short'``, ...
    """
    if data[:8] != SIGNATURE:
        raise ValueError('is no PNG')
    position, kinds = 8, []
    while position < len(data) and kinds[-1:] != [b'IEND']:
        length, kind = int.from_bytes(data[position : position + 4], 'big'), bytes(data[position + 4 : position + 8])
        end = position + 12 + length
        if end > len(data):
            raise ValueError('is cut short')
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], 'big'):
            raise ValueError('is damaged, by its own checksums')
        kinds.append(kind)
        position = end
    if kinds[:1] != [b'IHDR'] or kinds[-1:] != [b'IEND'] or b'IDAT' not in kinds:
        raise ValueError('is cut short')
    return kinds
