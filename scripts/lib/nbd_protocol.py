"""What the NBD protocol promises, asked of an export byte by byte. See 41-nbd-protocol.sh.

    nbd_protocol.py SOCKET|HOST:PORT SIZE [TEST...]

Every test is a function; it fails by an exception, and all are run.
"""

import os
import random
import signal
import struct
import sys
import time
import traceback

import rawnbd
from rawnbd import Client

PATH, SIZE = sys.argv[1], int(sys.argv[2])
MODES = ("simple", "structured", "extended")
MIB = 1 << 20


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r:.200} is not {wanted!r:.200}")


def zeroes_that_would_not_be_fast_are_not_begun():
    # The first to run: nobody knows yet whether allocated zeroes are fast on this disk.
    for mode in MODES:
        client = Client(PATH, mode)
        client.ask(rawnbd.WRITE, 0, 0, payload=b"f" * MIB)
        both = rawnbd.FAST_ZERO | rawnbd.NO_HOLE
        expect(client.ask(rawnbd.WRITE_ZEROES, both, 0, MIB), (rawnbd.ENOTSUP, b""))
        expect(client.ask(rawnbd.READ, 0, 0, MIB), (0, b"f" * MIB))
    # Holes are fast on every file system that repd's own tests run on.
    expect(client.ask(rawnbd.WRITE_ZEROES, rawnbd.FAST_ZERO, 0, MIB), (0, b""))
    expect(client.ask(rawnbd.READ, 0, 0, MIB), (0, bytes(MIB)))


def options_that_are_wrong_cost_nothing():
    client = Client(PATH, name=None)
    for number, data in ((8, b"x"), (11, b"x"), (9, b""), (10, b"\0" * 7), (3, b"x"), (99, b"")):
        replies = client.option(number, data)
        assert replies[-1][0] & rawnbd.REP_ERR, replies
    # Metadata before structured replies, then of an export that is not there.
    query = rawnbd.string(b"r0") + struct.pack(">I", 0)
    assert client.option(rawnbd.OPT_SET_META_CONTEXT, query)[-1][0] & rawnbd.REP_ERR
    expect(client.option(rawnbd.OPT_STRUCTURED_REPLY), [(rawnbd.REP_ACK, b"")])
    missing = rawnbd.string(b"r7") + struct.pack(">I", 0)
    assert client.option(rawnbd.OPT_LIST_META_CONTEXT, missing)[-1][0] == rawnbd.REP_ERR + 6
    listed = client.option(rawnbd.OPT_LIST_META_CONTEXT, query)
    expect(listed[0][0], rawnbd.REP_META_CONTEXT)
    expect(listed[0][1][4:], b"base:allocation")
    # A context that was not chosen cannot be asked for.
    replies = client.option(rawnbd.OPT_GO, rawnbd.string(b"r0") + struct.pack(">H", 0))
    expect(replies[-1][0], rawnbd.REP_ACK)
    client.mode = "structured"
    expect(client.ask(rawnbd.BLOCK_STATUS, 0, 0, 4096)[0], rawnbd.EINVAL)


def every_command_in_every_mode():
    for number, mode in enumerate(MODES):
        client = Client(PATH, mode, contexts=mode != "simple")
        place = number * 4 * MIB
        data = random.randbytes(3 * MIB)
        for flags in (0, rawnbd.FUA):
            expect(client.ask(rawnbd.WRITE, flags, place, payload=data), (0, b""))
        expect(client.ask(rawnbd.READ, 0, place, len(data)), (0, data))
        if mode != "simple":
            expect(client.ask(rawnbd.READ, rawnbd.DF, place, len(data)), (0, data))
        expect(client.ask(rawnbd.FLUSH), (0, b""))
        expect(client.ask(rawnbd.CACHE, 0, place, MIB), (0, b""))
        expect(client.ask(rawnbd.TRIM, 0, place, 64 << 10), (0, b""))
        expect(client.ask(rawnbd.WRITE_ZEROES, rawnbd.FUA, place + MIB, 4096), (0, b""))
        expect(client.ask(rawnbd.WRITE_ZEROES, rawnbd.NO_HOLE, place + MIB + 4096, 512), (0, b""))
        zeroed = bytearray(data)
        zeroed[: 64 << 10] = bytes(64 << 10)
        zeroed[MIB : MIB + 4608] = bytes(4608)
        expect(client.ask(rawnbd.READ, 0, place, len(data)), (0, bytes(zeroed)))


def what_is_not_right_gets_its_errno_and_nothing_else_happens():
    inval, nospc = rawnbd.EINVAL, rawnbd.ENOSPC
    for mode in MODES:
        client = Client(PATH, mode, contexts=mode != "simple")
        page = b"x" * 4096
        wrong = [
            (inval, "end", (rawnbd.READ, 0, SIZE, 4096)),
            (inval, "end", (rawnbd.READ, 0, SIZE - 4096, 8192)),
            (inval, "end", (rawnbd.READ, 0, (1 << 64) - 4096, 8192)),
            (nospc, "end", (rawnbd.WRITE, 0, SIZE, 0, page)),
            (nospc, "end", (rawnbd.WRITE_ZEROES, 0, SIZE - 4096, 8192)),
            (inval, "end", (rawnbd.TRIM, 0, SIZE - 4096, 8192)),
            (inval, "end", (rawnbd.CACHE, 0, SIZE - 4096, 8192)),
            (inval, "multiple", (rawnbd.READ, 0, 100, 4096)),
            (inval, "multiple", (rawnbd.READ, 0, 0, 100)),
            (inval, "multiple", (rawnbd.WRITE, 0, 0, 0, page[:100])),
            (inval, "multiple", (rawnbd.WRITE, 0, 100, 0, page)),
            (inval, "multiple", (rawnbd.TRIM, 0, 1, 4096)),
            (inval, "length is 0", (rawnbd.READ, 0, 0, 0)),
            (inval, "maximum", (rawnbd.READ, 0, 0, 33 * MIB)),
            (inval, "flush", (rawnbd.FLUSH, 0, 512, 512)),
            (inval, "unknown command", (77, 0, 0, 4096)),
            (inval, "flag", (rawnbd.READ, 1 << 12, 0, 4096)),
            (inval, "flag", (rawnbd.WRITE, rawnbd.NO_HOLE, 0, 0, page)),
            (inval, "flag", (rawnbd.TRIM, rawnbd.FAST_ZERO, 0, 4096)),
        ]
        if mode == "simple":
            wrong.append((inval, "", (rawnbd.READ, rawnbd.DF, 0, 4096)))
            wrong.append((inval, "", (rawnbd.BLOCK_STATUS, 0, 0, 4096)))
            wrong.append((inval, "", (rawnbd.WRITE, 0, 0, 0, bytes(33 * MIB))))
        else:
            wrong.append((inval, "end", (rawnbd.BLOCK_STATUS, 0, SIZE, 4096)))
        if mode == "extended":
            wrong.append((inval, "PAYLOAD_LEN", (rawnbd.WRITE, 0, 0, 4096)))
            wrong.append((inval, "payload", (rawnbd.READ, 0, 0, 0, page)))
            wrong.append((inval, "end", (rawnbd.TRIM, 0, 0, 1 << 63)))
        before = Client(PATH).ask(rawnbd.READ, 0, 0, MIB)
        for errno, text, request in wrong:
            client.send(*request)
            found = client.answer()
            if found[0] != errno or mode != "simple" and text not in client.message:
                raise AssertionError(f"{mode} {request!r:.80}: {found!r:.80} {client.message!r}")
        # The connection has kept its framing, and nothing was written.
        expect(client.ask(rawnbd.READ, 0, 0, MIB), before)


def what_breaks_the_framing_closes_that_connection_alone():
    bystander = Client(PATH, "structured")
    for mode in MODES:
        client = Client(PATH, mode)
        client.put(b"\x25\x60\x95\x14" + bytes(28))
        assert client.is_closed()
    client = Client(PATH, "extended")
    client.put(client.header(rawnbd.WRITE, rawnbd.PAYLOAD_LEN, 0, 33 * MIB))
    assert client.is_closed()
    # Compact requests are not for those who have agreed on extended ones.
    client = Client(PATH, "extended")
    client.mode = "structured"
    client.put(client.header(rawnbd.READ, 0, 0, 4096) + bytes(4))
    assert client.is_closed()
    expect(bystander.ask(rawnbd.READ, 0, 0, 4096)[0], 0)


def requests_longer_than_32_bits():
    client = Client(PATH, "extended", contexts=True)
    far = 5 << 30
    marks = {place: random.randbytes(4096) for place in (0, 4 << 30, far - 4096, far)}
    for place, data in marks.items():
        expect(client.ask(rawnbd.WRITE, 0, place, payload=data)[0], 0)
    expect(client.ask(rawnbd.CACHE, 0, 0, far), (0, b""))
    expect(client.ask(rawnbd.TRIM, 0, 0, far), (0, b""))
    expect(client.ask(rawnbd.READ, 0, far, 4096), (0, marks.pop(far)))
    for place in marks:
        expect(client.ask(rawnbd.READ, 0, place, 4096), (0, bytes(4096)))
    extents = client.status(0, SIZE)
    expect(extents[0], (far, 3))
    expect(client.status(0, far, rawnbd.REQ_ONE), [(far, 3)])
    zeroes = client.ask(rawnbd.WRITE_ZEROES, rawnbd.FAST_ZERO, 0, far)
    assert zeroes[0] in (0, rawnbd.ENOTSUP), zeroes


def holes_are_told_and_nothing_else_is_called_one():
    for mode in MODES[1:]:
        client = Client(PATH, mode, contexts=True)
        base = 512 * MIB
        expect(client.ask(rawnbd.TRIM, 0, base, 16 * MIB), (0, b""))
        # A sector in the middle makes its neighbours allocated, at least itself.
        client.ask(rawnbd.WRITE, 0, base + 4 * MIB + 512, payload=b"y" * 512)
        client.ask(rawnbd.WRITE, 0, base + 8 * MIB, payload=b"y" * MIB)
        extents = client.status(base, 16 * MIB)
        expect(sum(length for length, _ in extents), 16 * MIB)
        place = base
        for length, status in extents:
            assert length % 512 == 0 and status in (0, 3), extents
            error, data = client.ask(rawnbd.READ, 0, place, length)
            assert error == 0 and (status == 0 or data == bytes(length)), (place, length)
            place += length
        expect([status for _, status in extents], [3, 0, 3, 0, 3])
        expect(extents[2][0] + extents[1][0] + extents[0][0], 8 * MIB)
        expect(client.status(base, 16 * MIB, rawnbd.REQ_ONE), extents[:1])
        expect(client.status(base + 8 * MIB, 512), [(512, 0)])
        # What was written is not a hole from the moment of its answer on.
        for number in range(50):
            spot = base + 12 * MIB + number * 8192
            client.ask(rawnbd.WRITE, 0, spot, payload=b"z" * 4096)
            expect(client.status(spot, 4096), [(4096, 0)])


def more_extents_than_one_answer_has():
    client = Client(PATH, "structured", contexts=True)
    base, count = 768 * MIB, 1500
    for number in range(count):
        client.send(rawnbd.WRITE, 0, base + number * 8192, payload=b"e" * 4096)
        if number % 100 == 99:
            client.answers(100)
    place, found = base, []
    while place < base + count * 8192:
        extents = client.status(place, base + count * 8192 - place)
        found += extents
        place += sum(length for length, _ in extents)
    expect(found, [(4096, 0), (4096, 3)] * count)


def reads_of_32_mib():
    data = random.randbytes(32 * MIB)
    place = 1 << 30
    for mode in MODES:
        client = Client(PATH, mode)
        expect(client.ask(rawnbd.WRITE, 0, place, payload=data), (0, b""))
        for flags in (0, rawnbd.DF) if mode != "simple" else (0,):
            expect(client.ask(rawnbd.READ, flags, place, len(data)), (0, data))
        # Several at once, with small ones between them.
        cookies = {}
        for number in range(4):
            cookies[client.send(rawnbd.READ, 0, place + number * 4096, 20 * MIB)] = number * 4096
            cookies[client.send(rawnbd.READ, 0, place + number * 4096, 512)] = number * 4096
        for cookie, (error, read, _) in client.answers(8).items():
            start = cookies[cookie]
            expect((error, read), (0, data[start : start + len(read)]))


def a_large_read_beside_busy_writers():
    writers = [Client(PATH, mode) for mode in MODES]
    sent = [0] * len(writers)
    for round_number in range(3):
        for index, writer in enumerate(writers):
            for _ in range(24):
                writer.send(rawnbd.WRITE, 0, (1280 + 64 * index) * MIB, payload=b"w" * MIB)
                sent[index] += 1
        reader = Client(PATH, "structured")
        error, data = reader.ask(rawnbd.READ, 0, 1 << 30, 32 * MIB)
        expect((error, len(data)), (0, 32 * MIB))
    for writer, count in zip(writers, sent):
        assert all(answer[0] == 0 for answer in writer.answers(count).values())


def requests_in_pieces():
    for mode in MODES:
        client = Client(PATH, mode, step=1)
        data = random.randbytes(512)
        expect(client.ask(rawnbd.WRITE, 0, 4096, payload=data), (0, b""))
        expect(client.ask(rawnbd.READ, 0, 4096, 512), (0, data))
        # Cut in two at every byte, so that each part comes by itself.
        client.step = None
        whole = client.header(rawnbd.READ, 0, 4096, 512)
        for cut in range(1, len(whole)):
            client.put(whole[:cut])
            expect(Client(PATH).ask(rawnbd.READ, 0, 4096, 512), (0, data))
            client.put(whole[cut:])
            expect(client.answer(), (0, data))
            whole = client.header(rawnbd.READ, 0, 4096, 512)
        client.requests.popitem()


def a_client_that_has_finished_sending_gets_its_answers():
    for mode in MODES:
        for count, length in ((128, 4096), (40, MIB), (400, 512)):
            client = Client(PATH, mode)
            requests = [
                client.header(rawnbd.READ, 0, number * 512, length) for number in range(count)
            ]
            client.put(b"".join(requests))
            client.finish()
            answers = client.answers(count)
            assert all(answer[0] == 0 for answer in answers.values())
            assert client.is_closed()
        # With half of a write behind it, which is never done.
        client = Client(PATH, mode)
        client.send(rawnbd.READ, 0, 0, MIB)
        before = client.answer()
        client.send(rawnbd.READ, 0, 0, MIB)
        flags = rawnbd.PAYLOAD_LEN if mode == "extended" else 0
        client.put(client.header(rawnbd.WRITE, flags, 0, 8192) + b"h" * 4096)
        client.finish()
        expect(next(iter(client.answers(1).values()))[:2], before)
        assert client.is_closed()
        expect(Client(PATH, mode).ask(rawnbd.READ, 0, 0, MIB), before)


def a_disconnect_comes_behind_what_was_asked():
    for mode in MODES:
        client = Client(PATH, mode)
        for number in range(64):
            client.send(rawnbd.WRITE, rawnbd.FUA, number * 4096, payload=bytes([number]) * 4096)
        client.send(rawnbd.DISC)
        assert all(answer[0] == 0 for answer in client.answers(64).values())
        assert client.is_closed()


def a_slow_reader_disturbs_nobody_and_gets_all():
    data = random.randbytes(16 * MIB)
    other = Client(PATH, "structured")
    expect(other.ask(rawnbd.WRITE, 0, 1 << 30, payload=data)[0], 0)
    for mode in MODES:
        slow = Client(PATH, mode)
        for number in range(3):
            slow.send(rawnbd.READ, 0, 1 << 30, 16 * MIB)
        for number in range(200):
            expect(other.ask(rawnbd.WRITE, 0, 4096 * number, payload=b"o" * 4096)[0], 0)
        answers = slow.answers(3)
        assert all(answer[:2] == (0, data) for answer in answers.values())


def a_client_killed_with_128_requests_in_flight_disturbs_nobody():
    other = Client(PATH, "structured")
    for mode in MODES:
        pid = os.fork()
        if pid == 0:
            try:
                client = Client(PATH, mode)
                for number in range(64):
                    client.send(rawnbd.READ, 0, number * MIB, 128 << 10)
                    client.send(rawnbd.WRITE, 0, (2048 + number) * MIB, payload=b"k" * (64 << 10))
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        expect(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGKILL)
        for number in range(100):
            expect(other.ask(rawnbd.WRITE, 0, number * 4096, payload=b"a" * 4096)[0], 0)
        # Somebody new is let in, and finds each of its writes whole or not at all.
        again = Client(PATH, mode)
        for number in range(64):
            error, found = again.ask(rawnbd.READ, 0, (2048 + number) * MIB, 64 << 10)
            assert error == 0 and set(found) <= {0, ord("k")}, number
    del other


def sixty_connections_at_once():
    clients = [Client(PATH, MODES[number % 3]) for number in range(56)]
    for number, client in enumerate(clients):
        for step in range(4):
            place = (number * 4 + step) * 4096
            client.send(rawnbd.WRITE, 0, place, payload=bytes([number]) * 4096)
    for number, client in enumerate(clients):
        assert all(answer[0] == 0 for answer in client.answers(4).values())
    reader = Client(PATH, "structured")
    for number in range(len(clients)):
        found = reader.ask(rawnbd.READ, 0, number * 16384, 16384)
        expect(found, (0, bytes([number]) * 16384))


def main():
    seed = int(time.time())
    random.seed(seed)
    failures = 0
    tests = [test for test in globals().values() if callable(test) and test.__module__ == __name__]
    chosen = sys.argv[3:]
    for test in tests:
        if test in (main, expect) or chosen and test.__name__ not in chosen:
            continue
        began = time.monotonic()
        try:
            test()
        except Exception:
            failures += 1
            print(f"FAILED: {test.__name__}, seed {seed}")
            traceback.print_exc(limit=4, file=sys.stdout)
        else:
            print(f"  {test.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
