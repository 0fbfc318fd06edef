import Control
import DRBDWire
import Status
import Testing

@Suite struct ControlCodingTests {
    static let settings: ResourceSettings = {
        var settings = ResourceSettings(
            resource: "r0", nodeName: "alice", peerName: "bob", minor: 0, device: "/dev/drbd0",
            disk: "/dev/sda7",
            localAddress: ResourceSettings.Endpoint(family: .ipv4, host: "10.1.1.31", port: 7788),
            peerAddress: ResourceSettings.Endpoint(family: .ipv6, host: "fd01::2", port: 7788),
            nbdListen: ["127.0.0.1:10809"])
        settings.options.activityLogExtents = 257
        settings.options.flushWaitsForPeer = false
        settings.options.replicationProtocol = .A
        return settings
    }()

    static let commands: [ControlCommand] = [
        .ping, .up(settings), .attach(settings), .detach(force: true),
        .connect(settings, discardMyData: true), .disconnect(force: false), .primary(force: true),
        .secondary(disconnectClients: true), .invalidate, .outdate, .down(force: false),
        .status,
        .waitConnect(timeout: 3), .waitConnect(timeout: nil), .waitSync(timeout: 0),
    ]

    static let snapshot: StatusSnapshot = {
        var volume = VolumeStatus(
            number: 0, minor: 0, device: "/dev/drbd0", role: .primary, peerRole: .secondary,
            connection: .syncSource, disk: .upToDate, peerDisk: .inconsistent)
        volume.uuids = [.max, 4, 0, 0]
        volume.protocolLetter = "C"
        volume.flags.congestion = .network
        volume.counters.sent = .max
        volume.progress = SyncProgress(
            total: 10, left: 5, elapsedSeconds: 3, marks: [SyncProgress.Mark(age: 3, left: 10)])
        return StatusSnapshot(
            resource: "r0", node: "alice", peer: "bob", volumes: [volume],
            clients: [
                ClientStatus(name: "pid 7", volume: 0, connectedSeconds: 9, inFlight: 1)
            ],
            messages: ["split brain\n\"quoted\""], nbdURI: "nbd+unix:///r0?socket=/run/nbd.sock")
    }()

    private func withoutNewline(_ line: [UInt8]) -> [UInt8] { Array(line.dropLast()) }

    @Test(arguments: commands)
    func `a request comes out as it went in, on one line`(_ command: ControlCommand) throws {
        let line = try ControlCoding.encode(ControlRequest(command))
        #expect(line.firstIndex(of: UInt8(ascii: "\n")) == line.count - 1)
        #expect(try ControlCoding.decodeRequest(withoutNewline(line)) == ControlRequest(command))
    }

    @Test func `a reply comes out as it went in, with every state of a snapshot`() throws {
        var snapshot = Self.snapshot
        for connection in ConnectionState.allCases {
            for (role, disk) in zip(
                Role.allCases + Role.allCases + Role.allCases, DiskState.allCases)
            {
                snapshot.volumes[0].connection = connection
                snapshot.volumes[0].role = role
                snapshot.volumes[0].disk = disk
                let reply = ControlReply(
                    exitCode: 11, message: "no\nway", status: snapshot, progress: "waiting",
                    isFinal: false)
                let line = try ControlCoding.encode(reply)
                #expect(line.firstIndex(of: UInt8(ascii: "\n")) == line.count - 1)
                #expect(try ControlCoding.decodeReply(withoutNewline(line)) == reply)
            }
        }
    }

    @Test func `states are their words, for those who read the JSON`() throws {
        let text = try ControlCoding.statusText([Self.snapshot])
        for words in [
            "\"connection\" : \"SyncSource\"", "\"peerDisk\" : \"Inconsistent\"",
            "\"role\" : \"Primary\"", "\"writeOrdering\" : \"flush\"",
            "\"device\" : \"/dev/drbd0\"", "18446744073709551615",
        ] {
            #expect(text.contains(words), "\(words)")
        }
        #expect(try ControlCoding.statusText([]).hasPrefix("["))
    }

    @Test func `what a restarted process goes on with is kept in a file and read from it`() throws {
        let state = SavedState(settings: Self.settings, attached: true, connected: false)
        let bytes = try ControlCoding.encode(state)
        #expect(try ControlCoding.decodeState(bytes) == state)
        #expect(throws: ControlError.self) {
            try ControlCoding.decodeState(Array(bytes.dropLast(9)))
        }
    }

    @Test(arguments: [
        ("", "control message cannot be read: "),
        ("{", "control message cannot be read: "),
        ("[]", "control message cannot be read: "),
        ("{\"command\":{\"ping\":{}}}", "control message cannot be read: 'version' is missing"),
        ("{\"version\":1}", "control message cannot be read: 'command' is missing"),
        ("{\"version\":1,\"command\":{\"fly\":{}}}", "control message cannot be read: "),
        (
            "{\"version\":1,\"command\":{\"primary\":{}}}",
            "control message cannot be read: 'force' is missing in 'command.primary'"
        ),
        (
            "{\"version\":1,\"command\":{\"primary\":{\"force\":1}}}",
            "control message cannot be read: no Bool in 'command.primary.force'"
        ),
        (
            "{\"version\":2,\"order\":\"fly\"}",
            "control message has version 2, this program speaks 1: "
                + "repctl and repd are of different releases"
        ),
    ])
    func `what is no request is refused with the reason`(_ text: String, _ reason: String) throws {
        let error = try #require(throws: ControlError.self) {
            try ControlCoding.decodeRequest(Array(text.utf8))
        }
        #expect("\(error)".hasPrefix(reason), "\(error)")
    }

    @Test(arguments: [
        ("\"timeout\":60", "\"timeout\":9223372036854775807"),
        ("\"timeout\":60", "\"timeout\":0"), ("\"koCount\":7", "\"koCount\":-1"),
        ("\"activityLogExtents\":257", "\"activityLogExtents\":66"),
        ("\"minor\":0", "\"minor\":1048576"), ("\"volume\":0", "\"volume\":-1"),
        ("\"resumeLimit\":5", "\"resumeLimit\":1001"),
    ])
    func `settings that no configuration can have are refused`(_ good: String, _ bad: String)
        throws
    {
        func damaged(_ line: [UInt8]) throws -> [UInt8] {
            let text = String(decoding: line, as: UTF8.self)
            try #require(text.contains(good))
            return Array(text.replacing(good, with: bad).utf8)
        }
        let commands: [ControlCommand] = [
            .up(Self.settings), .attach(Self.settings),
            .connect(Self.settings, discardMyData: false),
        ]
        for command in commands {
            let line = try damaged(try ControlCoding.encode(ControlRequest(command)))
            let error = try #require(throws: ControlError.self) {
                try ControlCoding.decodeRequest(line)
            }
            #expect("\(error)".contains("out of range"), "\(error)")
        }
        let state = SavedState(settings: Self.settings, attached: true, connected: true)
        let bytes = try damaged(try ControlCoding.encode(state))
        #expect(throws: ControlError.self) { try ControlCoding.decodeState(bytes) }
    }

    @Test func `a state that does not exist is refused`() throws {
        let line = try ControlCoding.encode(ControlReply(status: Self.snapshot))
        let text = String(decoding: line, as: UTF8.self)
            .replacing("SyncSource", with: "SyncSauce")
        let error = try #require(throws: ControlError.self) {
            try ControlCoding.decodeReply(Array(text.utf8))
        }
        #expect("\(error)".contains("no ConnectionState is called 'SyncSauce'"))
    }

    @Test func `a message longer than a MiB is refused on both sides`() throws {
        let reply = ControlReply(message: String(repeating: "x", count: 1 << 20))
        #expect(throws: ControlError.tooLong(limit: 1 << 20)) { try ControlCoding.encode(reply) }
        let spaces = [UInt8](repeating: UInt8(ascii: " "), count: (1 << 20) + 1)
        #expect(throws: ControlError.tooLong(limit: 1 << 20)) {
            try ControlCoding.decodeReply(spaces)
        }
    }
}

@Suite struct LineBufferTests {
    @Test func `lines come out whole however they came in`() throws {
        let text = Array("one\n\ntwo three\n".utf8)
        for size in 1...text.count {
            var buffer = LineBuffer()
            var lines: [String] = []
            var rest = text[...]
            while !rest.isEmpty {
                try buffer.append(rest.prefix(size))
                rest = rest.dropFirst(size)
                while let line = try buffer.next() {
                    lines.append(String(decoding: line, as: UTF8.self))
                }
            }
            #expect(lines == ["one", "", "two three"])
            #expect(buffer.isEmpty)
        }
    }

    @Test func `an incomplete line waits`() throws {
        var buffer = LineBuffer()
        try buffer.append(Array("half".utf8))
        #expect(try buffer.next() == nil)
        #expect(!buffer.isEmpty)
    }

    @Test func `a line without end is refused at the limit`() throws {
        var buffer = LineBuffer()
        try buffer.append([UInt8](repeating: 1, count: ControlProtocol.maximumMessage))
        #expect(try buffer.next() == nil)
        try buffer.append([1])
        #expect(throws: ControlError.tooLong(limit: ControlProtocol.maximumMessage)) {
            try buffer.next()
        }
    }

    @Test func `a full line does not let an endless one pass behind it`() throws {
        var buffer = LineBuffer()
        try buffer.append(Array("a\n".utf8))
        try buffer.append([UInt8](repeating: 1, count: ControlProtocol.maximumMessage + 1))
        #expect(try buffer.next() == [UInt8(ascii: "a")])
        #expect(throws: ControlError.self) { try buffer.next() }
    }

    @Test func `lines that nobody takes are refused`() {
        var buffer = LineBuffer()
        #expect(throws: ControlError.self) {
            for _ in 0..<5 { try buffer.append([UInt8](repeating: 10, count: 1 << 19)) }
        }
    }
}
