"""Writes records over NBD, remembers which were acknowledged, and finds them again after a crash.

    records.py fill URI STATE [--blocks N]
    records.py write URI STATE [--blocks N] [--depth N] [--fua] [--rate N] [--seconds S]
    records.py verify URI|FILE STATE [--blocks N]

`fill` writes every block once, so that nothing older can be taken for a record. `write` overwrites random blocks of 4 KiB, each with its own number and a version that grows, until
the server goes away, SIGTERM comes or the time is over; then it writes down for each block the
version that was last acknowledged and the later ones that were not answered. `verify` reads every
block that was ever written: it must hold the acknowledged version or a later one that was sent,
whole, or mixed of those by sectors of 512 bytes, which is all that a disk promises. It then
narrows the file to what was found, so that what one crash left must survive the next ones.
"""

import argparse
import json
import os
import random
import signal
import struct
import sys
import time

BLOCK = 4096
SECTOR = 512


def content(block, version):
    return struct.pack("<QQ", block, version) * (BLOCK // 16)


def load(path):
    if not os.path.exists(path):
        return {"next": 1, "acked": {}, "pending": {}}
    with open(path, encoding="ascii") as file:
        state = json.load(file)
    return {
        "next": state["next"],
        "acked": {int(block): version for block, version in state["acked"].items()},
        "pending": {int(block): versions for block, versions in state["pending"].items()},
    }


def store(path, state):
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump(state, file)
    os.replace(path + ".new", path)


def connect(uri):
    import nbd

    handle = nbd.NBD()
    handle.connect_uri(uri)
    return nbd, handle


class Writer:
    def __init__(self, arguments, state):
        self.arguments = arguments
        self.state = state
        self.busy = set()
        self.stop = False
        self.acknowledged = 0
        self.failed = 0
        self.longest = 0.0

    def done(self, block, version, began):
        def completion(error):
            # A value of 1 has libnbd forget the command.
            self.busy.discard(block)
            self.longest = max(self.longest, time.monotonic() - began)
            if error:
                self.failed += 1
                return 1
            self.acknowledged += 1
            # Others of this block that were not answered are older: one is in flight at a time.
            self.state["acked"][block] = version
            self.state["pending"].pop(block, None)
            return 1

        return completion

    def choose(self):
        if self.arguments.action == "fill":
            self.stop = len(self.state["pending"]) + len(self.state["acked"]) + 1 \
                == self.arguments.blocks
            return self.arguments.first + self.state["next"] - 1
        return self.arguments.first + random.randrange(self.arguments.blocks)

    def issue(self, nbd, handle):
        block = self.choose()
        if block in self.busy:
            return
        version = self.state["next"]
        self.state["next"] += 1
        self.state["pending"].setdefault(block, []).append(version)
        self.busy.add(block)
        buffer = nbd.Buffer.from_bytearray(bytearray(content(block, version)))
        flags = nbd.CMD_FLAG_FUA if self.arguments.fua else 0
        handle.aio_pwrite(
            buffer, block * BLOCK, self.done(block, version, time.monotonic()), flags)

    def run(self):
        nbd, handle = connect(self.arguments.uri)
        limit = self.arguments.seconds
        began = time.monotonic()
        issued = 0
        try:
            while not (self.stop and not self.busy):
                late = limit and time.monotonic() - began > limit
                self.stop = self.stop or bool(late) or self.failed > 0
                while not self.stop and len(self.busy) < self.arguments.depth:
                    if self.arguments.rate and issued >= (
                            time.monotonic() - began) * self.arguments.rate:
                        break
                    self.issue(nbd, handle)
                    issued += 1
                if self.busy:
                    handle.poll(50)
                else:
                    time.sleep(0.002)
        except nbd.Error as error:
            print(f"server gone: {error.string}", file=sys.stderr)
        ok = not self.busy and not self.failed
        if ok:
            handle.shutdown()
        return ok


def write(arguments):
    if arguments.action == "fill" and os.path.exists(arguments.state):
        os.remove(arguments.state)
    state = load(arguments.state)
    writer = Writer(arguments, state)
    signal.signal(signal.SIGTERM, lambda *_: setattr(writer, "stop", True))
    random.seed(arguments.seed)
    try:
        ok = writer.run()
    finally:
        store(arguments.state, state)
    print(f"{writer.acknowledged} acknowledged, {len(writer.busy)} unanswered, "
          f"{writer.failed} failed, longest {writer.longest * 1000:.0f} ms")
    return 0 if ok or arguments.may_fail else 1


def reader(source):
    """A function that reads one block."""
    if "://" in source:
        _, handle = connect(source)
        return lambda block: bytes(handle.pread(BLOCK, block * BLOCK))
    file = os.open(source, os.O_RDONLY)
    return lambda block: os.pread(file, BLOCK, block * BLOCK)


def judge(block, data, allowed):
    """The version that the whole block has, 0 if it is an allowed mixture, or a complaint."""
    for version in allowed:
        if data == content(block, version):
            return version, None
    wanted = {content(block, version)[:SECTOR] for version in allowed}
    for offset in range(0, BLOCK, SECTOR):
        sector = data[offset:offset + SECTOR]
        if sector not in wanted:
            found = struct.unpack("<QQ", sector[:16])
            return None, (f"block {block}: sector {offset // SECTOR} has block {found[0]} version "
                          f"{found[1]}, allowed are {allowed}")
    return 0, None


def verify(arguments):
    state = load(arguments.state)
    read = reader(arguments.uri)
    complaints = []
    for block in sorted(set(state["acked"]) | set(state["pending"])):
        allowed = state["pending"].get(block, [])
        if block in state["acked"]:
            allowed = [state["acked"][block]] + allowed
        version, complaint = judge(block, read(block), allowed)
        if complaint:
            complaints.append(complaint)
        elif version:
            state["acked"][block] = version
            state["pending"].pop(block, None)
    for complaint in complaints[:10]:
        print(complaint)
    if complaints:
        print(f"{len(complaints)} of {len(state['acked'])} records are lost")
        return 1
    store(arguments.state, state)
    print(f"{len(state['acked'])} records are there")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("action", choices=["fill", "write", "verify"])
    parser.add_argument("uri", help="of the export; to verify also a file or device")
    parser.add_argument("state", help="file that remembers the records")
    parser.add_argument("--blocks", type=int, default=2000, help="how many blocks are overwritten")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--rate", type=int, default=0, help="writes per second at most")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--fua", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--may-fail", action="store_true", help="a server that goes away is no error")
    arguments = parser.parse_args()
    return verify(arguments) if arguments.action == "verify" else write(arguments)


if __name__ == "__main__":
    sys.exit(main())
