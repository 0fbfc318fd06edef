"""Writes records to an export or a device, remembers which were acknowledged, and finds them again.

    records.py fill TARGET STATE [--blocks N]
    records.py write TARGET STATE [--blocks N] [--depth N] [--fua] [--rate N] [--seconds S] [--reconnect S]
    records.py verify TARGET STATE

TARGET is an NBD URI, a block device, or for `verify` a file. `fill` writes every block of 4 KiB once,
so that nothing older can be taken for a record. `write` overwrites random blocks, each with its own
number and a version that grows, until the server goes away, SIGTERM comes or the time is over. STATE
then has for each block the version that was last acknowledged and the later ones that were not
answered. With --journal it has every start and acknowledgement at once, for machines that die.

`verify` reads every block that was ever acknowledged: it must hold the acknowledged version or a later
one that was sent, whole, or mixed of those by sectors of 512 bytes, which is all that a disk
promises. It then narrows STATE to what was found: what one crash left must survive the next ones.
"""

import argparse
import errno
import json
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time

BLOCK = 4096
SECTOR = 512


def content(block, version):
    return struct.pack("<QQ", block, version) * (BLOCK // 16)


def load(path):
    if not os.path.exists(path):
        return {"next": 1, "acked": {}, "pending": {}}
    with open(path, encoding="ascii") as file:
        text = file.read()
    if not text.startswith("{"):
        return replay(text)
    state = json.loads(text)
    return {
        "next": state["next"],
        "acked": {int(block): version for block, version in state["acked"].items()},
        "pending": {int(block): versions for block, versions in state["pending"].items()},
    }


def replay(text):
    """The state that a journal tells of; its last line may be incomplete."""
    state = {"next": 1, "acked": {}, "pending": {}}
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        kind, block, version = line.split()
        begin(state, int(block), int(version)) if kind == "s" else end(
            state, int(block), int(version))
    return state


def begin(state, block, version):
    state["next"] = max(state["next"], version + 1)
    state["pending"].setdefault(block, []).append(version)


def end(state, block, version):
    # Others of this block that were not answered are older: one is in flight at a time.
    state["acked"][block] = version
    state["pending"].pop(block, None)


def store(path, state):
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump(state, file)
    os.replace(path + ".new", path)


def connect(uri):
    import nbd

    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


class Writer:
    def __init__(self, arguments, state):
        self.arguments = arguments
        self.state = state
        self.busy = set()
        self.stop = False
        self.acknowledged = 0
        self.failed = 0
        self.longest = 0.0
        self.filled = 0
        # By connection: what comes of an old one is not looked at.
        self.connection = 0
        self.unanswered = {}
        self.journal = None
        if arguments.journal:
            self.journal = os.open(arguments.state, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, kind, block, version):
        if self.journal is not None:
            os.write(self.journal, f"{kind} {block} {version}\n".encode())

    def choose(self):
        """The next block and version; nothing if it is in use at the moment, or all is done."""
        if self.arguments.action == "fill":
            if self.filled == self.arguments.blocks:
                self.stop = True
                return None
            block = self.arguments.first + self.filled
            self.filled += 1
        else:
            block = self.arguments.first + random.randrange(self.arguments.blocks)
            if block in self.busy:
                return None
        version = self.state["next"]
        begin(self.state, block, version)
        self.note("s", block, version)
        self.busy.add(block)
        return block, version

    def done(self, block, version, began, error):
        self.busy.discard(block)
        self.longest = max(self.longest, time.monotonic() - began)
        if error:
            self.failed += 1
        else:
            self.acknowledged += 1
            end(self.state, block, version)
            self.note("a", block, version)

    def issue(self, nbd, handle):
        chosen = self.choose()
        if chosen:
            self.send(nbd, handle, *chosen, time.monotonic())

    def send(self, nbd, handle, block, version, began):
        connection = self.connection
        self.unanswered[block] = (version, began)

        def completion(error):
            # What a dead connection leaves behind is sent again on the next one.
            lost = self.arguments.reconnect and error.value == errno.ENOTCONN
            if connection == self.connection and not lost:
                del self.unanswered[block]
                self.done(block, version, began, error)
            return 1  # libnbd may forget the command.

        buffer = nbd.Buffer.from_bytearray(bytearray(content(block, version)))
        flags = nbd.CMD_FLAG_FUA if self.arguments.fua else 0
        handle.aio_pwrite(buffer, block * BLOCK, completion, flags)

    def reconnect(self, nbd):
        """A new connection, on which what was not answered comes once more, oldest first."""
        self.connection += 1
        end = time.monotonic() + self.arguments.reconnect
        while True:
            try:
                handle = connect(self.arguments.target)
                break
            except nbd.Error as error:
                if time.monotonic() > end:
                    print(f"server gone: {error.string}", file=sys.stderr)
                    return None
                time.sleep(0.005)
        again = sorted(self.unanswered.items(), key=lambda item: item[1][0])
        for block, (version, began) in again:
            self.send(nbd, handle, block, version, began)
        return handle

    def run_nbd(self):
        import nbd

        began = time.monotonic()
        handle = self.reconnect(nbd)
        while handle:
            try:
                return self.talk(nbd, handle, began)
            except nbd.Error as error:
                if not self.arguments.reconnect:
                    print(f"server gone: {error.string}", file=sys.stderr)
                    return False
            handle = self.reconnect(nbd)
        return False

    def talk(self, nbd, handle, began):
        limit = self.arguments.seconds
        issued = self.acknowledged
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
        if not self.failed:
            handle.shutdown()
        return not self.failed

    def run_device(self):
        """As many threads as the depth, one write each."""
        device = os.open(self.arguments.target, os.O_WRONLY | os.O_DIRECT)
        lock = threading.Lock()
        began = time.monotonic()
        limit = began + self.arguments.seconds if self.arguments.seconds else None
        issued = 0

        def too_fast():
            rate = self.arguments.rate
            return rate and issued >= (time.monotonic() - began) * rate

        def work():
            nonlocal issued
            page = mmap.mmap(-1, BLOCK)
            while not self.stop and not self.failed and not (limit and time.monotonic() > limit):
                with lock:
                    chosen = None if too_fast() else self.choose()
                    issued += chosen is not None
                if not chosen:
                    time.sleep(0.002)
                    continue
                block, version = chosen
                page[:] = content(block, version)
                submitted = time.monotonic()
                error = None
                try:
                    os.pwrite(device, page, block * BLOCK)
                except OSError as failure:
                    error = failure
                with lock:
                    self.done(block, version, submitted, error)

        threads = [threading.Thread(target=work) for _ in range(self.arguments.depth)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return not self.failed


def write(arguments):
    if arguments.action == "fill" and os.path.exists(arguments.state):
        os.remove(arguments.state)
    state = load(arguments.state)
    writer = Writer(arguments, state)
    signal.signal(signal.SIGTERM, lambda *_: setattr(writer, "stop", True))
    random.seed(arguments.seed)
    try:
        ok = writer.run_nbd() if "://" in arguments.target else writer.run_device()
    finally:
        if not arguments.journal:
            store(arguments.state, state)
    print(f"{writer.acknowledged} acknowledged, {len(writer.busy)} unanswered, "
          f"{writer.failed} failed, longest {writer.longest * 1000:.0f} ms, "
          f"{writer.connection} connections")
    return 0 if ok or arguments.may_fail else 1


def reader(source):
    """A function that reads one block."""
    if "://" in source:
        handle = connect(source)
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
    read = reader(arguments.target)
    complaints = []
    # Of a block that was never acknowledged nothing can be said: it may be as it was before.
    for block in sorted(state["acked"]):
        allowed = [state["acked"][block]] + state["pending"].get(block, [])
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
    parser.add_argument("target", help="URI of an export, a device, to verify also a file")
    parser.add_argument("state", help="file that remembers the records")
    parser.add_argument("--blocks", type=int, default=2000, help="how many blocks are overwritten")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--rate", type=int, default=0, help="writes per second at most")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--journal", action="store_true", help="STATE is always up to date")
    parser.add_argument("--fua", action="store_true")
    parser.add_argument("--reconnect", type=float, default=0,
                        help="seconds that a server which goes away may take to be back")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--may-fail", action="store_true", help="a server that goes away is no error")
    arguments = parser.parse_args()
    return verify(arguments) if arguments.action == "verify" else write(arguments)


if __name__ == "__main__":
    sys.exit(main())
