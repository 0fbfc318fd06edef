import CShims
import Glibc
package import Support

/// Why the kernel does not do with a device what it is asked.
package enum KernelDeviceError: Error, Equatable, CustomStringConvertible {
    case noModule
    case notPermitted
    case inUse(index: Int)
    /// Nothing is attached, or not by whom it was believed.
    case notAttached(index: Int)
    case allInUse
    case foreignNode(String, found: String)
    case system(SystemError)

    package var description: String {
        switch self {
        case .noModule: "the kernel has no nbd (modprobe nbd)"
        case .notPermitted: "only root may attach a kernel device"
        case .inUse(let index): "/dev/nbd\(index) is in use"
        case .notAttached(let index): "/dev/nbd\(index) is not attached"
        case .allInUse: "every /dev/nbdN is in use (modprobe nbd nbds_max=N gives more)"
        case .foreignNode(let path, let found):
            "\(path) exists and is \(found), which is not repd's"
        case .system(let error):
            "\(error.object.isEmpty ? "" : "\(error.object): ")\(error.call): \(Self.text(error.errno))"
        }
    }

    private static func text(_ errno: Int32) -> String {
        // The text is constant.
        guard let text = unsafe shim_error_text(errno) else { return "error \(errno)" }
        return unsafe String(cString: text)
    }
}

/// A socket to the kernel's nbd.
///
/// Nothing here waits for requests of a device, with one exception: `disconnect` may, when requests
/// are being sent. So it is for processes that serve none.
package struct NBDControl: ~Copyable {
    private static let family = Int32(16)
    private static let generic = Int32(16)
    private static let patience = Int32(5000)

    private let descriptor: Int32
    private let number: UInt16

    /// - Throws: `noModule`.
    package init() throws(KernelDeviceError) {
        let kind = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(Self.family, kind, Self.generic)
        guard descriptor >= 0 else { throw .system(SystemError("socket", "netlink", errno: errno)) }
        do throws(SystemError) {
            let question = FamilyQuestion.message(NBDCommand.familyName)
            let answer = try Self.ask(descriptor, question)
            guard let number = answer.flatMap({ FamilyQuestion.answer($0) }) else {
                throw SystemError("netlink", NBDCommand.familyName, errno: ENOENT)
            }
            self.number = number
            self.descriptor = descriptor
        } catch {
            close(descriptor)
            throw error.errno == ENOENT ? .noModule : .system(error)
        }
    }

    deinit { close(descriptor) }

    /// - Parameter socket: one end of a pair; the kernel has its own reference from then on.
    package func connect(
        _ export: KernelExport, index: Int, socket: Int32
    ) throws(KernelDeviceError) {
        try perform(NBDCommand.connect(export, index: UInt32(index), socket: socket), index)
    }

    /// Gives a fresh socket to a device whose own is dead. If it is not dead yet, the kernel takes
    /// none, and does not say so: the other end of the pair is closed then.
    package func reconfigure(
        _ export: KernelExport, index: Int, socket: Int32
    ) throws(KernelDeviceError) {
        try perform(NBDCommand.reconfigure(export, index: UInt32(index), socket: socket), index)
    }

    /// Everything that the device holds fails.
    package func disconnect(index: Int) throws(KernelDeviceError) {
        try perform(NBDCommand.disconnect(index: UInt32(index)), index)
    }

    /// Whether `/proc/self/status` says that a process may do any of it: CAP_SYS_ADMIN.
    static func isPermitted(status: String) -> Bool {
        let prefix = "CapEff:"
        guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix(prefix) }),
            let digits = line.dropFirst(prefix.count).split(whereSeparator: { " \t".contains($0) })
                .first, let set = UInt64(digits, radix: 16)
        else { return false }
        return set & 1 << 21 != 0
    }

    /// - Throws: `notPermitted` where the kernel would refuse, which it would say in its log.
    package func checkPermission() throws(KernelDeviceError) {
        let path = "/proc/self/status"
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw .system(SystemError("open", path, errno: errno)) }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 8192)
        // No more than the buffer holds.
        let count = unsafe read(file, &bytes, bytes.count)
        let text = String(decoding: bytes[..<max(0, count)], as: UTF8.self)
        guard Self.isPermitted(status: text) else { throw .notPermitted }
    }

    private func perform(_ message: NetlinkMessage, _ index: Int) throws(KernelDeviceError) {
        var message = message
        message.type = number
        do throws(SystemError) { _ = try Self.ask(descriptor, message) } catch {
            switch error.errno {
            case EBUSY: throw .inUse(index: index)
            case EPERM, EACCES: throw .notPermitted
            case EINVAL, ENODEV, ENOENT: throw .notAttached(index: index)
            default: throw .system(SystemError("netlink", "/dev/nbd\(index)", errno: error.errno))
            }
        }
    }

    /// - Returns: the answer, `nil` where there is only an acknowledgement.
    private static func ask(
        _ descriptor: Int32, _ message: NetlinkMessage
    ) throws(SystemError) -> NetlinkMessage? {
        let bytes = message.encoded()
        // As many bytes as the array has.
        guard unsafe send(descriptor, bytes, bytes.count, 0) == bytes.count else {
            throw SystemError("sendmsg", "netlink", errno: errno)
        }
        let wantsAcknowledgement = message.flags & NetlinkMessage.wantsAcknowledgement != 0
        var answer: NetlinkMessage?
        var buffer = [UInt8](repeating: 0, count: 16384)
        while true {
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard unsafe poll(&entry, 1, patience) > 0 else {
                throw SystemError("recvmsg", "netlink", errno: ETIMEDOUT)
            }
            let count = unsafe recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            guard count > 0 else { throw SystemError("recvmsg", "netlink", errno: errno) }
            for received in NetlinkMessage.decode(Array(buffer[..<count])) {
                switch received {
                case .acknowledgement(_, 0): return answer
                case .acknowledgement(_, let errno):
                    throw SystemError("netlink", errno: errno)
                case .message(let message):
                    answer = message
                    if !wantsAcknowledgement { return answer }
                }
            }
        }
    }
}
