"""A stranger: connects to a port or a socket and says what no program of ours would say.

    junk.py tcp PORT | unix PATH   [COUNT]

Random bytes, short and long, silence, the beginnings of DRBD's and NBD's own conversations followed
by nonsense, lengths without end, and half of a message before hanging up. The seed is printed.
"""

import random
import socket
import struct
import sys
import time

SEED = int(time.time())


def beginnings():
    """What gets a stranger further than random bytes do."""
    # DRBD: P_CONNECTION_FEATURES, P_INITIAL_DATA and P_INITIAL_META with the headers of 8.0 and 9.5.
    for command in (0xFFFE, 0xFFF1, 0xFFF2, 0x10, 0x00, 0x0F, 0x2C):
        for length in (0, 80, 0xFFFF):
            yield struct.pack(">IHH", 0x83740267, command & 0xFFFF, length)
            yield struct.pack(">HHI", 0x835A, command & 0xFFFF, length)
            yield struct.pack(">IHHII", 0x8620EC20, 0, command & 0xFFFF, length, 0)
    # The features that a peer would send, and then whatever.
    features = struct.pack(">II8xI60x", 86, 101, 101)
    yield struct.pack(">IHH", 0x83740267, 0xFFFE, 80) + features
    yield struct.pack(">IHH", 0x83740267, 0xFFFE, 80) + struct.pack(">II72x", 9, 8)
    # NBD: client flags, then options: EXPORT_NAME, INFO, GO, LIST, STRUCTURED_REPLY, unknown.
    for flags in (0, 1, 3, 0xFFFFFFFF):
        yield struct.pack(">I", flags)
        for option in (1, 2, 3, 6, 7, 8, 10, 0xFFFF):
            for length in (0, 4, 6, 4096, 0xFFFFFFFF):
                yield struct.pack(">IQII", flags, 0x49484156454F5054, option, length)
    yield b'{"version":1,"command":{"status":{}}}'
    yield b'{"version":1,"command":{"nonsense":{}}}\n'
    yield b'{"version":9,"command":{"ping":{}}}\n'
    yield b"[" * 100000 + b"\n"
    yield b'{"version":1,"command":"' + b"x" * 3000000


def connect(kind, place):
    if kind == "tcp":
        return socket.create_connection(("127.0.0.1", int(place)), timeout=5)
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(5)
    end.connect(place)
    return end


def talk(kind, place, text, waits):
    """Says it, and takes what comes, for a moment; both sides may hang up at any time."""
    end = connect(kind, place)
    end.settimeout(0.05)
    try:
        end.sendall(text)
        if waits:
            end.recv(4096)
    except OSError:
        pass
    finally:
        end.close()


def main():
    kind, place = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    random.seed(SEED)
    print(f"seed {SEED}")
    texts = [b""] + list(beginnings())
    for number in range(count):
        text = texts[number % len(texts)] + random.randbytes(random.choice((0, 1, 7, 80, 5000, 200000)))
        talk(kind, place, text, number % 3 == 0)
    # Some that stay, and say nothing.
    silent = [connect(kind, place) for _ in range(8)]
    time.sleep(0.3)
    for end in silent:
        end.close()


if __name__ == "__main__":
    main()
