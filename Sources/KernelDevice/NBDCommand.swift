// What the kernel's nbd is told by generic netlink.
// Source: linux/nbd-netlink.h, linux/genetlink.h.

/// One command of the family `nbd`, as a message.
enum NBDCommand {
    static let familyName = "nbd"

    private enum Command {
        static let connect: UInt8 = 1
        static let disconnect: UInt8 = 2
        static let reconfigure: UInt8 = 3
    }

    private enum Attribute {
        static let index: UInt16 = 1
        static let size: UInt16 = 2
        static let blockSize: UInt16 = 3
        // 4 is the timeout, never given: a request slower than it would be sent again for ever.
        static let serverFlags: UInt16 = 5
        static let sockets: UInt16 = 7
        static let deadConnectionTimeout: UInt16 = 8
        static let backend: UInt16 = 10
        // Inside of `sockets`, and of one socket.
        static let socketItem: UInt16 = 1
        static let socketDescriptor: UInt16 = 1
    }

    static func connect(_ export: KernelExport, index: UInt32, socket: Int32) -> NetlinkMessage {
        var attributes = NetlinkAttributes()
        attributes.append(Attribute.index, index)
        attributes.append(Attribute.size, export.size)
        attributes.append(Attribute.blockSize, UInt64(export.blockSize))
        attributes.append(Attribute.serverFlags, UInt64(export.flags))
        attributes.append(Attribute.deadConnectionTimeout, UInt64(export.patience))
        attributes.append(Attribute.backend, text: export.backend)
        attributes.append(Attribute.sockets, nested: sockets(socket))
        return message(Command.connect, attributes)
    }

    /// A fresh socket in the place of one that is dead; everything else stays.
    static func reconfigure(
        _ export: KernelExport, index: UInt32, socket: Int32
    ) -> NetlinkMessage {
        var attributes = NetlinkAttributes()
        attributes.append(Attribute.index, index)
        attributes.append(Attribute.deadConnectionTimeout, UInt64(export.patience))
        attributes.append(Attribute.backend, text: export.backend)
        attributes.append(Attribute.sockets, nested: sockets(socket))
        return message(Command.reconfigure, attributes)
    }

    static func disconnect(index: UInt32) -> NetlinkMessage {
        var attributes = NetlinkAttributes()
        attributes.append(Attribute.index, index)
        return message(Command.disconnect, attributes)
    }

    private static func sockets(_ descriptor: Int32) -> NetlinkAttributes {
        var socket = NetlinkAttributes()
        socket.append(Attribute.socketDescriptor, UInt32(bitPattern: descriptor))
        var list = NetlinkAttributes()
        list.append(Attribute.socketItem, nested: socket)
        return list
    }

    /// The type is filled in when the family's number is known.
    private static func message(
        _ command: UInt8, _ attributes: NetlinkAttributes
    ) -> NetlinkMessage {
        NetlinkMessage(
            type: 0, flags: NetlinkMessage.request | NetlinkMessage.wantsAcknowledgement,
            command: command, attributes: attributes)
    }
}

/// What the kernel has to know of an export.
package struct KernelExport: Equatable, Sendable {
    /// Bytes.
    package var size: UInt64
    /// Bytes: what the device calls its logical block.
    package var blockSize: UInt32
    /// The transmission flags of NBD.
    package var flags: UInt16
    /// Seconds that requests wait for a fresh socket when the last one is dead.
    package var patience: Int
    /// Whose it is; sysfs shows it, and only who knows it may give a fresh socket.
    package var backend: String

    package init(size: UInt64, blockSize: UInt32, flags: UInt16, patience: Int, backend: String) {
        self.size = size
        self.blockSize = blockSize
        self.flags = flags
        self.patience = patience
        self.backend = backend
    }
}

/// How the number of a family is asked for.
enum FamilyQuestion {
    private static let controller: UInt16 = 0x10
    private static let getFamily: UInt8 = 3
    private static let number: UInt16 = 1
    private static let name: UInt16 = 2

    static func message(_ family: String) -> NetlinkMessage {
        var attributes = NetlinkAttributes()
        attributes.append(name, text: family)
        return NetlinkMessage(
            type: controller, flags: NetlinkMessage.request, command: getFamily,
            attributes: attributes)
    }

    static func answer(_ message: NetlinkMessage) -> UInt16? {
        message.type == controller ? message.attributes.number(number) : nil
    }
}
