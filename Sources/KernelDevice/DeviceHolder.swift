import Glibc
import Support

/// What a child does with a device of its parent's (safety.md S21): whoever sleeps in an open, an fsync
/// or a disconnect of it must not be the process that serves it.
package enum DeviceHolder {
    /// What the child says on its line, one word each.
    package enum Word: String, Sendable {
        /// It is open, and nobody else has claimed it; or somebody has.
        case held, busy
        /// Everything written to it has been answered; or not.
        case flushed, unflushed
        case disconnected
        /// A reason follows.
        case failed
    }

    /// What the parent says.
    package static let disconnect = "disconnect"

    /// Exit status of a process that was to disconnect a device which somebody has claimed; or a holder
    /// has it, that of an engine that died with its demotion.
    package static let claimedStatus: Int32 = 11
    package static let heldStatus: Int32 = 12

    /// Opens the node for itself alone, flushes it, waits for the word to disconnect it, and holds it
    /// until the line ends.
    ///
    /// - Returns: the exit status.
    package static func hold(_ index: Int, nodes: KernelNodes, line: Int32) -> Int32 {
        let lock: Int32
        do throws(KernelDeviceError) {
            guard let own = try lockPatiently(index, nodes, line) else { return 0 }
            lock = own
        } catch {
            say(.failed, line, "\(error)")
            _ = readLine(line)
            return 0
        }
        let device = unsafe open(nodes.path(index), O_RDWR | O_EXCL | O_CLOEXEC)
        defer {
            // In this order: whoever finds the lock free finds the node free.
            if device >= 0 { close(device) }
            close(lock)
        }
        if device >= 0 {
            say(.held, line)
            say(fsync(device) == 0 ? .flushed : .unflushed, line)
        } else if errno == EBUSY {
            say(.busy, line)
        } else {
            let error = SystemError("open", nodes.path(index), errno: errno)
            say(.failed, line, "\(KernelDeviceError.system(error))")
        }
        guard readLine(line) == disconnect else { return 0 }
        do throws(KernelDeviceError) {
            let control = try NBDControl()
            try control.disconnect(index: index)
            say(.disconnected, line)
        } catch {
            say(.failed, line, "\(error)")
        }
        _ = readLine(line)
        return 0
    }

    /// One that an engine has left when it died flushes until the next engine has answered it. Nobody
    /// else has the device, so it is waited for.
    ///
    /// - Returns: `nil` if the line has ended.
    private static func lockPatiently(
        _ index: Int, _ nodes: KernelNodes, _ line: Int32
    ) throws(KernelDeviceError) -> Int32? {
        while true {
            if let lock = try nodes.lockForHolder(index) { return lock }
            // The parent says nothing before it has heard something.
            var entry = pollfd(fd: line, events: Int16(POLLIN), revents: 0)
            // One entry, as the call is told.
            if unsafe poll(&entry, 1, 20) > 0 { return nil }
        }
    }

    /// Disconnects a device whose server is dead. Everything that it holds fails.
    ///
    /// - Parameters:
    ///   - claims: only if nobody else has claimed it.
    ///   - backend: whose it was; that of another stays as it is.
    /// - Returns: 0, `claimedStatus`, `heldStatus`, or 1 with a reason.
    package static func release(
        _ index: Int, claims: Bool, backend: String, nodes: KernelNodes
    ) -> (status: Int32, reason: String?) {
        guard nodes.isAttached(index, by: backend) else { return (0, nil) }
        if claims {
            let device = unsafe open(nodes.path(index), O_RDWR | O_EXCL | O_CLOEXEC)
            guard device >= 0 else {
                let error = SystemError("open", nodes.path(index), errno: errno)
                let reason = "\(KernelDeviceError.system(error))"
                guard error.errno == EBUSY else { return (1, reason) }
                return (hasHolder(index, nodes) ? heldStatus : claimedStatus, reason)
            }
            // Until this process ends: then there is nothing left that could be claimed.
        }
        do throws(KernelDeviceError) {
            let control = try NBDControl()
            try control.disconnect(index: index)
        } catch {
            guard case .notAttached = error else { return (1, "\(error)") }
        }
        return (0, nil)
    }

    private static func hasHolder(_ index: Int, _ nodes: KernelNodes) -> Bool {
        do throws(KernelDeviceError) {
            guard let lock = try nodes.lockForHolder(index) else { return true }
            close(lock)
        } catch {
            // Nobody can be waited for whose lock cannot be looked at.
        }
        return false
    }

    private static func say(_ word: Word, _ line: Int32, _ text: String? = nil) {
        let bytes = Array((word.rawValue + (text.map { " " + $0 } ?? "") + "\n").utf8)
        // A parent that is gone is noticed when its line is read.
        _ = unsafe send(line, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    private static func readLine(_ line: Int32) -> String? {
        var text: [UInt8] = []
        var byte: UInt8 = 0
        while true {
            let count = unsafe read(line, &byte, 1)
            if count < 0, errno == EINTR { continue }
            guard count == 1, text.count < 256 else { return nil }
            if byte == UInt8(ascii: "\n") { return String(decoding: text, as: UTF8.self) }
            text.append(byte)
        }
    }
}
