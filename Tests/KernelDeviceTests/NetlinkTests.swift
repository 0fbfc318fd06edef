import Testing

@testable import KernelDevice

/// Against bytes put together by hand from linux/netlink.h, genetlink.h and nbd-netlink.h.
@Suite struct NetlinkTests {
    private let export = KernelExport(
        size: 0x1_2345_6000, blockSize: 512, flags: 0x16d, patience: 30, backend: "repd /r0")

    private func header(_ length: UInt8, type: UInt8, flags: UInt8 = 5, command: UInt8) -> [UInt8] {
        [length, 0, 0, 0, type, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, command, 1, 0, 0]
    }

    private let sockets: [UInt8] = [
        16, 0, 7, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 9, 0, 0, 0,
    ]
    private let patience: [UInt8] = [12, 0, 8, 0, 30, 0, 0, 0, 0, 0, 0, 0]
    private let backend: [UInt8] =
        [13, 0, 10, 0] + Array("repd /r0".utf8) + [0, 0, 0, 0]

    private func encoded(_ message: NetlinkMessage) -> [UInt8] {
        var message = message
        message.type = 0x1c
        return message.encoded()
    }

    @Test func `connect names device, size, block, flags, patience, owner and socket, no timeout`()
    {
        let expected: [UInt8] =
            header(20 + 8 + 12 + 12 + 12 + 12 + 16 + 16, type: 0x1c, command: 1)
            + [8, 0, 1, 0, 3, 0, 0, 0]
            + [12, 0, 2, 0, 0x00, 0x60, 0x45, 0x23, 1, 0, 0, 0]
            + [12, 0, 3, 0, 0, 2, 0, 0, 0, 0, 0, 0]
            + [12, 0, 5, 0, 0x6d, 1, 0, 0, 0, 0, 0, 0]
            + patience + backend + sockets
        #expect(encoded(NBDCommand.connect(export, index: 3, socket: 9)) == expected)
    }

    @Test func `a fresh socket comes with the name of the owner`() {
        let expected: [UInt8] =
            header(20 + 8 + 12 + 16 + 16, type: 0x1c, command: 3) + [8, 0, 1, 0, 3, 0, 0, 0]
            + patience + backend + sockets
        #expect(encoded(NBDCommand.reconfigure(export, index: 3, socket: 9)) == expected)
    }

    @Test func `disconnect names the device`() {
        let expected: [UInt8] = header(28, type: 0x1c, command: 2) + [8, 0, 1, 0, 2, 0, 0, 0]
        #expect(encoded(NBDCommand.disconnect(index: 2)) == expected)
    }

    @Test func `the number of a family is asked for by its name`() {
        #expect(
            FamilyQuestion.message("nbd").encoded()
                == header(28, type: 0x10, flags: 1, command: 3) + [8, 0, 2, 0, 0x6e, 0x62, 0x64, 0])
    }

    @Test func `the number of a family is found in the answer`() {
        let bytes: [UInt8] =
            [40, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 2, 0, 0]
            + [8, 0, 2, 0, 0x6e, 0x62, 0x64, 0] + [6, 0, 1, 0, 0x1c, 0, 0, 0]
            + [0xff, 0xff]
        // The length does not cover the last two: they are not a message.
        let received = NetlinkMessage.decode([36] + bytes.dropFirst())
        guard case .message(let message)? = received.first else {
            Issue.record("no message in \(received)")
            return
        }
        #expect(received.count == 1)
        #expect(FamilyQuestion.answer(message) == 0x1c)
        var other = message
        other.type = 0x1c
        #expect(FamilyQuestion.answer(other) == nil)
    }

    @Test(arguments: [(0, 0), (-2, 2), (-16, 16)] as [(Int32, Int32)])
    func `an acknowledgement has an errno`(code: Int32, errno: Int32) {
        let low = UInt8(truncatingIfNeeded: code)
        let high = UInt8(truncatingIfNeeded: code >> 8)
        let bytes: [UInt8] =
            [36, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0] + [low, high, high, high]
            + [UInt8](repeating: 0, count: 16)
        #expect(NetlinkMessage.decode(bytes) == [.acknowledgement(sequence: 7, errno: errno)])
    }

    @Test func `several messages in one datagram are told apart`() {
        let one: [UInt8] = [20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        let two: [UInt8] = [
            20, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
        ]
        #expect(
            NetlinkMessage.decode(one + two) == [
                .acknowledgement(sequence: 1, errno: 0), .acknowledgement(sequence: 2, errno: 1),
            ])
    }

    @Test(
        arguments: [
            [], [20, 0, 0], [15, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            [40, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [16, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ] as [[UInt8]])
    func `what is cut off is no message`(bytes: [UInt8]) {
        #expect(NetlinkMessage.decode(bytes).isEmpty)
    }

    @Test(arguments: [
        ("Name:\trepd\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000200000\n", true),
        ("CapEff:\t000001ffffdfffff\n", false), ("CapPrm:\t000001ffffffffff\n", false),
        ("CapEff:\tmuch\n", false), ("CapEff:", false), ("", false),
    ])
    func `who may attach is seen beforehand`(status: String, isPermitted: Bool) {
        #expect(NBDControl.isPermitted(status: status) == isPermitted)
    }

    @Test func `an attribute that reaches behind the end is none`() {
        let attributes = NetlinkAttributes(bytes: [9, 0, 1, 0, 1, 0, 0, 0])
        #expect(attributes.value(1) == nil)
        let none: UInt32? = NetlinkAttributes(bytes: [6, 0, 1, 0, 1, 0, 0, 0]).number(1)
        #expect(none == nil)
    }
}
