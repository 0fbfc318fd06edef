"""An NBD client that sends what it is told to, byte by byte, right or wrong. For scenarios:

    client = rawnbd.Client("/path/of/nbd.sock", mode="extended", contexts=True)    # or HOST:PORT
    client.send(rawnbd.READ, offset=0, length=4096)
    error, data = client.answer()

Source: the NBD protocol, and its extension-ext-header for extended headers.
"""

import socket
import struct

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))
EIO, EINVAL, ENOSPC, ENOTSUP, ESHUTDOWN = 5, 22, 28, 95, 108

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO = 1, 2, 3, 6, 7
OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_EXTENDED_HEADERS = 8, 9, 10, 11
REP_ACK, REP_META_CONTEXT, REP_ERR = 1, 4, 1 << 31

# Reply chunks.
NONE, OFFSET_DATA, STATUS, STATUS_EXT, ERROR = 0, 1, 5, 6, 0x8001


def string(text):
    return struct.pack(">I", len(text)) + text


class Closed(Exception):
    """The server has closed the connection."""


class Client:
    """A connection past GO, unless `name` is None: then only the greeting has been exchanged."""

    def __init__(self, path, mode="simple", contexts=False, name=b"r0", step=None):
        self.mode = mode
        self.cookie = 0
        self.requests = {}
        # How many bytes leave at a time; None: all at once.
        self.step = step
        if path.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(60)
            self.socket.connect(path)
        else:
            host, port = path.split(":")
            self.socket = socket.create_connection((host, int(port)), timeout=60)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greeting = self.take(18)
        assert greeting == b"NBDMAGICIHAVEOPT\0\3", greeting
        self.put(struct.pack(">I", 3))
        if mode == "structured":
            assert self.option(OPT_STRUCTURED_REPLY) == [(REP_ACK, b"")]
        if mode == "extended":
            assert self.option(OPT_EXTENDED_HEADERS) == [(REP_ACK, b"")]
        if contexts:
            query = string(name) + struct.pack(">I", 1) + string(b"base:allocation")
            replies = self.option(OPT_SET_META_CONTEXT, query)
            assert replies[0][0] == REP_META_CONTEXT and replies[-1][0] == REP_ACK, replies
            self.context = struct.unpack(">I", replies[0][1][:4])[0]
        if name is not None:
            replies = self.option(OPT_GO, string(name) + struct.pack(">H", 0))
            assert replies[-1][0] == REP_ACK, replies

    # Bytes.

    def put(self, data):
        if self.step is None:
            self.socket.sendall(data)
            return
        for place in range(0, len(data), self.step):
            self.socket.sendall(data[place : place + self.step])

    def take(self, count):
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(min(count - len(data), 1 << 20))
            if not part:
                raise Closed(f"{len(data)} of {count} bytes")
            data += part
        return bytes(data)

    def is_closed(self):
        """Waits for the end of the stream; anything else that comes is an error."""
        try:
            data = self.socket.recv(1)
        except ConnectionResetError:
            return True
        assert data == b"", data
        return True

    def finish(self):
        """Half-closes: nothing more is sent."""
        self.socket.shutdown(socket.SHUT_WR)

    # The handshake.

    def option(self, number, data=b""):
        """The replies as (type, data), up to the last."""
        self.put(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.take(20))
            assert (magic, option) == (0x3E889045565A9, number), (hex(magic), option)
            replies.append((kind, self.take(length)))
            if kind == REP_ACK or kind & REP_ERR:
                return replies

    # Requests and replies.

    def header(self, command, flags=0, offset=0, length=0):
        self.cookie += 1
        self.requests[self.cookie] = (command, offset, length)
        if self.mode == "extended":
            return struct.pack(">IHHQQQ", 0x21E41C71, flags, command, self.cookie, offset, length)
        return struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length)

    def send(self, command, flags=0, offset=0, length=0, payload=b""):
        """Sends a request with the right flag for its payload. - Returns its cookie."""
        if self.mode == "extended" and payload:
            flags |= PAYLOAD_LEN
        self.put(self.header(command, flags, offset, length or len(payload)) + payload)
        return self.cookie

    def chunk(self):
        """The next reply or part of one: cookie, type, whether it is the last, payload or errno."""
        magic = struct.unpack(">I", self.take(4))[0]
        if magic == 0x67446698:
            assert self.mode != "extended", "a simple reply among extended ones"
            error, cookie = struct.unpack(">IQ", self.take(12))
            command, _, length = self.requests[cookie]
            if error:
                return cookie, ERROR, True, (error, "")
            if command != READ:
                return cookie, NONE, True, b""
            assert self.mode == "simple", "a simple reply to a read"
            return cookie, OFFSET_DATA, True, (None, self.take(length))
        if self.mode == "extended":
            assert magic == 0x6E8A278C, hex(magic)
            flags, kind, cookie, offset, length = struct.unpack(">HHQQQ", self.take(28))
            assert offset == self.requests[cookie][1], "another offset comes back"
        else:
            assert (self.mode, magic) == ("structured", 0x668E33EF), hex(magic)
            flags, kind, cookie, length = struct.unpack(">HHQI", self.take(16))
        payload = self.take(length)
        if kind == OFFSET_DATA:
            return cookie, kind, flags & 1, (struct.unpack(">Q", payload[:8])[0], payload[8:])
        if kind == ERROR:
            error, size = struct.unpack(">IH", payload[:6])
            assert size == len(payload) - 6, "a message of another length"
            return cookie, kind, flags & 1, (error, payload[6:].decode())
        return cookie, kind, flags & 1, payload

    def answers(self, count):
        """So many whole answers by their cookies: (errno, data, message)."""
        whole = {}
        parts = {}
        while len(whole) < count:
            cookie, kind, is_last, payload = self.chunk()
            command, offset, length = self.requests[cookie]
            data, error, message = parts.setdefault(cookie, [bytearray(), 0, ""])
            if kind == OFFSET_DATA:
                assert command == READ
                at, read = payload
                place = 0 if at is None else at - offset
                if len(data) < length:
                    data.extend(bytes(length - len(data)))
                data[place : place + len(read)] = read
            elif kind in (STATUS, STATUS_EXT):
                assert command == BLOCK_STATUS
                data.extend(payload)
            elif kind == ERROR:
                parts[cookie][1:] = payload
            else:
                assert (kind, payload) == (NONE, b""), (kind, payload)
            if is_last:
                data, error, message = parts.pop(cookie)
                whole[cookie] = (error, bytes(data), message)
                del self.requests[cookie]
        return whole

    def answer(self):
        """The answer to the only request: errno and data; the message is kept."""
        ((error, data, self.message),) = self.answers(1).values()
        return error, data

    def ask(self, command, flags=0, offset=0, length=0, payload=b""):
        self.send(command, flags, offset, length, payload)
        return self.answer()

    def status(self, offset, length, flags=0):
        """The extents from `offset` on: (length, status)."""
        error, data = self.ask(BLOCK_STATUS, flags, offset, length)
        assert error == 0, error
        if self.mode == "extended":
            context, count = struct.unpack(">II", data[:8])
            extents = list(struct.iter_unpack(">QQ", data[8:]))
            assert count == len(extents)
        else:
            (context,) = struct.unpack(">I", data[:4])
            extents = list(struct.iter_unpack(">II", data[4:]))
        assert context == self.context
        return extents
