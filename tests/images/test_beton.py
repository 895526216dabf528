"""The .beton format as our writer leaves it."""

from __future__ import annotations

from cleanctl.images.packed.beton import JPEG, PAGE_SIZE, BetonFile, BetonWriter, Sample


def test_samples_never_cross_a_page(tmp_path):
    sizes = [PAGE_SIZE // 2, PAGE_SIZE // 2 + 1, 5, PAGE_SIZE, 1, PAGE_SIZE - 1, 7]
    with open(tmp_path / "x.beton", "wb") as file:
        writer = BetonWriter(file, len(sizes), bytes(16))
        for index, size in enumerate(sizes):
            writer.add(Sample(JPEG, 1, 1, bytes([index]) * size))
        writer.finish()
    beton = BetonFile(tmp_path / "x.beton")
    for index, size in enumerate(sizes):
        at = int(beton.sample[index]["data_ptr"])
        assert at // PAGE_SIZE == (at + size - 1) // PAGE_SIZE
        assert bytes(beton[index].data) == bytes([index]) * size
