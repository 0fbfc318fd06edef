#!/usr/bin/env python3
"""Compares the meta data that repctl and drbdmeta make and print, over sizes, places and logs.

usage: metadata_matrix.py REPCTL DIRECTORY IMAGES

Both programs make meta data on sparse files of the same size in DIRECTORY; super block, activity log and
bitmap have to be the same bytes, and the dumps of both programs the same text but for the header and the
flags (drbdmeta 9.22 prints 0 for them), fresh and with a size and bits in use. What drbdmeta refuses
repctl has to refuse. Then both print the golden images of IMAGES; those that are damaged repctl has to
refuse with a reason. The last lines count what was compared.
"""
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SIZES = [69632, 69633, 70144, 73728, MIB, MIB + 3584, 16 * MIB, 64 * MIB, 64 * MIB + 512,
         64 * MIB + 4095, 128 * MIB, 128 * MIB + 1, 128 * MIB + 512, 128 * MIB + 4096,
         256 * MIB - 512, GIB, 40 * GIB + 512, TIB]
# Half a gigabyte of bitmap: only with two of the logs.
LARGEST = 16 * TIB
# Of the device that holds nothing but meta data.
META_SIZES = [69632, 69633, 70144, 73728, MIB, MIB + 512, MIB + 3584, 2 * MIB, 2 * MIB + 4095, 8 * MIB,
              16 * MIB, 17 * MIB, 20 * MIB + 512, 24 * MIB, 28 * MIB, 30 * MIB, 33 * MIB, 64 * MIB]
SLOT = 128 * MIB
SLOTS = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 200, 254, 255]
SHAPES = [(1, 8), (1, 16), (2, 4), (3, 9), (4, 64)]


# Golden images that are none of v08, or damaged, and what repctl says of them.
REFUSED = {
    "bad-magic": "magic 0x", "bad-magic-zero": "No valid meta data found",
    "bad-truncated": "No valid meta data found", "bad-grown": "No valid meta data found",
    "bad-bm-offset": "bm_offset", "bad-md-size": "md_size_sect", "bad-al-offset": "al_offset",
    "bad-al-stripes-zero": "one of the two is 0", "bad-bm-bytes-per-bit": "bm_bytes_per_bit 8192",
    "v07-fixed-internal": "format v07", "v07-flex-internal": "format v07",
    "v09-internal-2peers": "format v09", "v09-internal-3peers-dirty": "format v09",
}


def run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def drbdmeta(path, index, *command):
    return run(["drbdmeta", "--force", *command[1:], "-", "v08", path, index, command[0]])


def repctl(program, directory, path, statement, *command):
    disk = "/nonexistent/data" if "meta-disk " + path in statement else path
    place = "on {0} {{ device /dev/drbd0; disk {1}; address 127.0.0.1:{2}; {3}; }}\n"
    configuration = os.path.join(directory, "repd.conf")
    with open(configuration, "w") as file:
        file.write("resource r0 {\n" + place.format("a", disk, 7788, statement)
                   + place.format("b", disk, 7789, statement) + "}\n")
    return run([program, "-c", configuration, "--run-dir", directory, "--node-name", "a",
                command[0], *command[1:], "r0"])


def body(text):
    """A dump without what differs: header, flags."""
    text = text[text.index("#\n\n"):] if "#\n\n" in text else text
    return re.sub(r"flags 0x[0-9A-F]+;", "flags", text)


class Disk:
    def __init__(self, path, size):
        self.path, self.size = path, size
        with open(path, "wb") as file:
            file.truncate(size)

    def read(self, offset, count):
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(count)

    def write(self, offset, data):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)


class Matrix:
    def __init__(self, program, directory):
        self.program, self.directory = program, directory
        self.same = self.refused = self.dumps = 0

    def fail(self, case, what):
        sys.exit(f"{case}: {what}")

    def case(self, place, index, size, shape):
        name = f"{place}[{index}] {size} bytes, {shape[0]}x{shape[1]} blocks"
        judge = Disk(os.path.join(self.directory, "judge"), size)
        ours = Disk(os.path.join(self.directory, "ours"), size)
        statement = {"internal": "meta-disk internal", "flexible": f"meta-disk {ours.path}",
                     "indexed": f"meta-disk {ours.path} [{index}]"}[place]
        options = ["--al-stripes", str(shape[0]), "--al-stripe-size-kB", str(4 * shape[1])]
        if shape == (1, 8):
            options = []
        forms = {"internal": "internal", "flexible": "flex-external", "indexed": str(index)}
        judged = drbdmeta(judge.path, forms[place], "create-md", *options)
        made = repctl(self.program, self.directory, ours.path, statement, "create-md", *options)
        if judged[0] != 0:
            if made[0] == 0:
                self.fail(name, f"made, but drbdmeta refuses: {judged[2]}")
            self.refused += 1
            return
        superblock = {"internal": (size - 4096) // 4096 * 4096, "flexible": 0,
                      "indexed": SLOT * index}[place]
        fields = struct.unpack(">IiIi", judge.read(superblock + 64, 16))
        sectors, log, bitmap = fields[0], fields[1] * 512, fields[3] * 512
        if made[0] != 0:
            # drbdmeta makes these, and nobody can use them.
            room = -bitmap if place == "internal" else 0
            behind = superblock + bitmap + 4096 > size if place != "internal" else room > superblock - 4096
            if not behind:
                self.fail(name, f"exit status {made[0]}, drbdmeta makes it: {made[2]}")
            self.refused += 1
            return
        pieces = [("super block", superblock, 4096),
                  ("log", superblock + log, 4096 * shape[0] * shape[1]),
                  ("bitmap", superblock + bitmap,
                   log - bitmap if place == "internal" else sectors * 512 - bitmap)]
        for part, offset, count in pieces:
            # Of a large bitmap every part is looked at, but not every byte.
            step, length = (512 * KIB, 64 * KIB) if count > 8 * MIB else (MIB, MIB)
            for start in [*range(offset, offset + count, step), max(offset, offset + count - length)]:
                length = min(length, offset + count - start)
                if judge.read(start, length) != ours.read(start, length):
                    self.fail(name, f"{part} at byte {offset} differs")
        self.same += 1
        self.compare_dumps(name, ours, forms[place], statement)
        # The whole bitmap in use, with bits.
        capacity = (superblock + bitmap) // 512 if place == "internal" else min(
            (sectors - fields[3]) // 8 * 8 * 32768, 1 << 41)
        ours.write(superblock, struct.pack(">Q", capacity))
        source = random.Random(name)
        for _ in range(8):
            word = source.randrange((capacity + 511) // 512)
            ours.write(superblock + bitmap + 8 * word, bytes([source.randrange(256)] * 8))
        self.compare_dumps(name, ours, forms[place], statement)

    def compare_dumps(self, name, disk, index, statement):
        judged = drbdmeta(disk.path, index, "dump-md")
        printed = repctl(self.program, self.directory, disk.path, statement, "dump-md")
        if judged[0] != 0 or printed[0] != 0:
            self.fail(name, f"dump-md ended with {judged[0]} and {printed[0]}: {printed[2]}")
        if body(judged[1]) != body(printed[1]):
            self.fail(name, "the dumps differ")
        self.dumps += 1


    def image(self, directory):
        """One golden image, in the text of scripts/fixtures-metadata. Returns whether it is refused."""
        expected = json.loads((directory / "expect.json").read_text())
        lines = (directory / "image.txt").read_text().splitlines()
        disk = Disk(os.path.join(self.directory, "image"), int(lines[0]))
        for place, body_of in zip(lines[1::2], lines[2::2]):
            words = b""
            for token in body_of.split():
                count, _, word = token.rpartition("*")
                words += struct.pack(">I", int(word, 16)) * int(count or 1)
            disk.write(int(place[1:]), words[:disk.size - int(place[1:])])
        index = expected["layout"].replace("fixed-", "")
        statement = {"internal": "meta-disk internal", "flex-external": f"meta-disk {disk.path}"}.get(
            index, f"meta-disk {disk.path} [{index}]")
        printed = repctl(self.program, self.directory, disk.path, statement, "dump-md", "--force")
        name = directory.name
        if name in REFUSED:
            if printed[0] != 1 or REFUSED[name] not in printed[2]:
                self.fail(name, f"exit status {printed[0]}, says {printed[2]}")
            return True
        judged = drbdmeta(disk.path, index, "dump-md")
        if judged[0] != 0 or printed[0] != 0 or body(judged[1]) != body(printed[1]):
            self.fail(name, f"dump-md ended with {judged[0]} and {printed[0]}, or the texts differ")
        return False


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    matrix = Matrix(*sys.argv[1:3])
    for shape in SHAPES:
        for size in SIZES:
            matrix.case("internal", 0, size, shape)
        if shape in (SHAPES[0], SHAPES[-1]):
            matrix.case("internal", 0, LARGEST, shape)
        for size in META_SIZES:
            matrix.case("flexible", 0, size, shape)
        for slot in SLOTS:
            matrix.case("indexed", slot, (slot + 1) * SLOT + slot % 3 * 512, shape)
    print(f"{matrix.same} the same, {matrix.refused} refused by both, {matrix.dumps} dumps the same")
    images = sorted(path.parent for path in pathlib.Path(sys.argv[3]).glob("*/image.txt"))
    refused = sum(matrix.image(image) for image in images)
    if refused != len(REFUSED):
        sys.exit(f"{refused} images are refused, not {len(REFUSED)}")
    print(f"{len(images) - refused} images printed alike, {refused} refused with the reason")


main()
