import CShims
import Glibc
package import Support

/// A file or device that operations can be started on: its place in the reactor's table.
package struct FileID: Hashable, BitwiseCopyable, Sendable {
    let index: UInt16
}

/// What `deallocate` leaves behind; both read as zeros.
package enum Deallocation: Equatable, BitwiseCopyable, Sendable {
    /// The space is given back, which not every file system and device can.
    case punchHole
    case zeroRange
}

/// A struct statx.
package typealias LookRecord = InlineArray<32, UInt64>

extension Reactor {
    /// Makes `descriptor` usable; it remains the caller's, who closes it after `removeFile`.
    ///
    /// - Throws: ENFILE if all `fileCount` places are taken.
    package mutating func addFile(_ descriptor: Int32) throws(SystemError) -> FileID {
        invariant(descriptor >= 0, "file descriptor \(descriptor)")
        var index = 0
        while index < files.count, files[index] >= 0 { index += 1 }
        guard index < files.count else {
            throw SystemError("open", "more than \(Self.fileCount) files", errno: ENFILE)
        }
        try register(descriptor, at: index)
        files[index] = descriptor
        return FileID(index: UInt16(index))
    }

    /// Operations under way still complete; the kernel holds the open file, and with it the claim,
    /// until then, and some kernels a second longer: who claims it again has to try for a while.
    package mutating func removeFile(_ file: FileID) throws(SystemError) {
        let index = Int(file.index)
        invariant(files[index] >= 0, "file \(index) removed twice")
        // What is prepared names the place, not the file.
        submitEarly()
        try register(-1, at: index)
        files[index] = -1
    }

    private func register(_ descriptor: Int32, at index: Int) throws(SystemError) {
        guard filesRegistered else { return }
        var descriptor = descriptor
        let code = unsafe io_uring_register_files_update(ring, UInt32(index), &descriptor, 1)
        guard code >= 0 else { throw SystemError("io_uring_register", errno: -code) }
    }

    /// - Parameters:
    ///   - bufferOffset: where the bytes lie in the arena.
    ///   - position: where they go in the file.
    ///   - durable: complete only when they survive a loss of power.
    package mutating func write(
        _ file: FileID, bufferOffset: Int, length: UInt32, at position: UInt64, durable: Bool,
        token: Token
    ) {
        let bytes = unsafe place(bufferOffset, Int(length))
        let sqe = unsafe entry()
        if buffersRegistered {
            unsafe io_uring_prep_write_fixed(sqe, 0, bytes, length, position, 0)
        } else {
            unsafe io_uring_prep_write(sqe, 0, bytes, length, position)
        }
        if durable { unsafe shim_durable(sqe) }
        unsafe finish(sqe, file, token)
    }

    package mutating func read(
        _ file: FileID, bufferOffset: Int, length: UInt32, at position: UInt64, token: Token
    ) {
        let bytes = unsafe place(bufferOffset, Int(length))
        let sqe = unsafe entry()
        if buffersRegistered {
            unsafe io_uring_prep_read_fixed(sqe, 0, bytes, length, position, 0)
        } else {
            unsafe io_uring_prep_read(sqe, 0, bytes, length, position)
        }
        unsafe finish(sqe, file, token)
    }

    /// Completes when everything that was written before survives a loss of power.
    package mutating func flush(_ file: FileID, token: Token) {
        let sqe = unsafe entry()
        unsafe io_uring_prep_fsync(sqe, 0, UInt32(IORING_FSYNC_DATASYNC))
        unsafe finish(sqe, file, token)
    }

    /// EOPNOTSUPP and EINVAL are no disk errors: the file cannot do it in this way.
    package mutating func deallocate(
        _ file: FileID, at position: UInt64, length: UInt64, _ mode: Deallocation, token: Token
    ) {
        let flags =
            switch mode {
            case .punchHole: shim_punch_hole
            case .zeroRange: shim_zero_range
            }
        let sqe = unsafe entry()
        unsafe io_uring_prep_fallocate(
            sqe, 0, Int32(flags), off_t(position), off_t(length))
        unsafe finish(sqe, file, token)
    }

    /// Asks for the size and the number of names of a file, which need not be in the table; `seen` has
    /// them when it has completed with 0. One at a time.
    package mutating func look(_ descriptor: Int32, token: Token) {
        let sqe = unsafe entry()
        unsafe shim_prepare_look(sqe, descriptor, lookRecord.address(of: 0))
        unsafe sqe.pointee.user_data = token.bits
    }

    /// What `look` has found last.
    package var seen: (size: UInt64, links: UInt32) {
        (lookRecord[0][5], UInt32(truncatingIfNeeded: lookRecord[0][2]))
    }

    @inline(__always)
    private func finish(_ sqe: UnsafeMutablePointer<io_uring_sqe>, _ file: FileID, _ token: Token) {
        let index = Int(file.index)
        invariant(files[index] >= 0, "file \(index) was removed")
        if filesRegistered {
            unsafe sqe.pointee.fd = Int32(index)
            unsafe shim_fixed_file(sqe)
        } else {
            unsafe sqe.pointee.fd = files[index]
        }
        unsafe sqe.pointee.user_data = token.bits
    }
}
