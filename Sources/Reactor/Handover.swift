import CShims
import Glibc
package import Support

/// One end of the line between a supervisor and its engine: messages of one line, each with a
/// descriptor or without.
package struct Handover: Sendable {
    /// Longer messages are none of ours.
    static let limit = 512

    package let descriptor: Int32

    /// Takes the descriptor over; it is closed on exec.
    package init(descriptor: Int32) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }

    package func close() { _ = Glibc.close(descriptor) }

    /// The descriptors of two ends.
    package static func pair() throws(SystemError) -> (one: Int32, other: Int32) {
        var one: Int32 = -1
        var other: Int32 = -1
        let code = unsafe shim_socket_pair(&one, &other)
        guard code == 0 else { throw SystemError("socketpair", errno: -code) }
        return (one, other)
    }

    /// Does not wait: EAGAIN when the other end does not read.
    package func send(_ text: String, passing passed: Int32 = -1) throws(SystemError) {
        let bytes = Array(text.utf8)
        let code = unsafe bytes.withUnsafeBytes { buffer -> Int32 in
            guard let start = buffer.baseAddress else { return -EINVAL }
            return unsafe shim_send_descriptor(descriptor, start, UInt(buffer.count), passed)
        }
        guard code == 0 else { throw SystemError("sendmsg", errno: -code) }
    }

    /// The next message, `nil` if none has come. Whoever gets a descriptor closes it.
    package func receive() -> (text: String, passed: Int32)? {
        var bytes = [UInt8](repeating: 0, count: Self.limit)
        var passed: Int32 = -1
        let count = unsafe shim_receive_descriptor(
            descriptor, &bytes, UInt(bytes.count), &passed)
        guard count > 0 else { return nil }
        return (String(decoding: bytes[..<count], as: UTF8.self), passed)
    }
}
