import Glibc
import Reactor
import Support
import Testing

private func refusal(
    _ path: String, _ extent: BackingFile.Extent = .whole
) -> BackingFileError? {
    do throws(BackingFileError) {
        _ = try BackingFile(opening: path, claiming: extent)
        return nil
    } catch { return error }
}

/// Whether it comes true within 5 s. A child of another test shares our open files until it has
/// replaced its program, and with them the locks.
private func soon(_ condition: () -> Bool) -> Bool {
    for _ in 0..<500 {
        if condition() { return true }
        usleep(10_000)
    }
    return false
}

private func name() throws -> String {
    let name = try #require(text("/proc/self/comm"))
    return String(name.dropLast())
}

@Suite struct BackingFileTests {
    @Test func `a file is opened with its size and block size`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("disk", size: 1_048_576 + 512)
        let disk = try BackingFile(opening: path)
        #expect(disk.kind == .file)
        #expect(disk.size == 1_048_576 + 512)
        #expect(disk.blockSize == 512 || disk.blockSize == 4096)
        #expect(fcntl(disk.descriptor, F_GETFD) & FD_CLOEXEC != 0)
        try disk.write(pattern(4096), at: 8192)
        try disk.flush()
        #expect(try disk.read(at: 8192, count: 4096) == pattern(4096))
        #expect(throws: SystemError("read", "behind the end", errno: EIO)) {
            _ = try disk.read(at: 1_048_576, count: 8192)
        }
    }

    @Test func `a file is claimed once and the refusal names the holder`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("disk", size: 1 << 20)
        do {
            let disk = try BackingFile(opening: path)
            let holder = BackingFileHolder.process(getpid(), name: try name())
            #expect(refusal(path) == .busy(path: path, holder))
            #expect(
                refusal(path)?.description == "\(path): in use by pid \(getpid()) (\(try name()))")
            #expect(disk.size == 1 << 20)
        }
        #expect(soon { refusal(path) == nil })
    }

    @Test func `another program's lock is respected`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("disk", size: 1 << 20)
        var reactor = try makeReactor()
        let child = try reactor.spawn(
            "/usr/bin/flock", arguments: [path, "/bin/sleep", "60"], environment: [])
        let deadline = reactor.now() + .seconds(10)
        while refusal(path) == nil, reactor.now() < deadline {
            _ = try reactor.turn(timeout: .milliseconds(10))
        }
        let holder = BackingFileHolder.process(reactor.process(ofChild: child), name: "flock")
        #expect(refusal(path) == .busy(path: path, holder))
        reactor.signal(SIGKILL, child: child)
        _ = try reactor.turns { !$0.isEmpty }
        #expect(soon { refusal(path) == nil })
    }

    @Test func `ranges are claimed apart, and keep the whole from being claimed`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("meta", size: 1 << 20)
        let first = try BackingFile(
            opening: path, claiming: .range(offset: 0, length: 131_072))
        let second = try BackingFile(
            opening: path, claiming: .range(offset: 131_072, length: 131_072))
        for extent in [
            BackingFile.Extent.whole, .range(offset: 0, length: 131_072),
            .range(offset: 262_143, length: 2),
        ] {
            guard case .busy = refusal(path, extent) else {
                Issue.record("\(extent) was claimed twice")
                continue
            }
        }
        #expect(soon { refusal(path, .range(offset: 262_144, length: 1)) == nil })
        #expect(first.size == second.size)
    }

    @Test func `what is neither file nor device is refused`() {
        #expect(refusal("/tmp") == .neitherFileNorDevice(path: "/tmp"))
        #expect(refusal("/dev/null") == .neitherFileNorDevice(path: "/dev/null"))
        #expect(
            refusal("/nonexistent") == .system(SystemError("open", "/nonexistent", errno: ENOENT)))
    }

    @Test func `where direct I/O does not go the page cache does`() throws {
        // A file of /dev/shm is in the page cache whatever it is opened with.
        let path = "/dev/shm/reactor-\(getpid())"
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        try #require(descriptor >= 0)
        defer { unsafe unlink(path) }
        #expect(ftruncate(descriptor, 1 << 20) == 0)
        close(descriptor)
        let disk = try BackingFile(opening: path)
        try disk.write(pattern(512), at: 512)
        #expect(try disk.read(at: 512, count: 512) == pattern(512))
        #expect(disk.blockSize == 512)
    }
}

/// A loop device over a new file of 4 MiB; `close` detaches it.
private struct Loop: ~Copyable {
    let device: String
    let file: String

    init(_ directory: borrowing TemporaryDirectory, _ options: [String] = []) throws {
        let file = try directory.file("image-\(options.count)", size: 4 << 20)
        let output = try directory.file("output-\(options.count)", size: 0)
        var reactor = try makeReactor()
        let descriptor = unsafe open(output, O_WRONLY | O_CLOEXEC)
        defer { close(descriptor) }
        let child = try reactor.spawn(
            "/sbin/losetup", arguments: ["--find", "--show"] + options + [file],
            environment: [], output: descriptor)
        _ = try reactor.turns(until: .exited(child: child, status: 0))
        let line = try #require(text(output))
        device = String(line.dropLast())
        self.file = file
    }

    deinit {
        var reactor = try? makeReactor()
        _ = try? reactor?.run("/sbin/losetup", ["-d", device])
    }
}

private let isRoot = geteuid() == 0

@Suite(.enabled(if: isRoot), .serialized) struct LoopDeviceTests {
    @Test func `a device is claimed once, and the file below it with it`() throws {
        let directory = try TemporaryDirectory()
        let loop = try Loop(directory)
        let (device, file) = (loop.device, loop.file)
        do {
            let disk = try BackingFile(opening: device)
            #expect(disk.kind == .blockDevice)
            #expect(disk.size == 4 << 20)
            let holder = BackingFileHolder.process(getpid(), name: try name())
            #expect(refusal(device) == .busy(path: device, holder))
            // A claim of ours on a plain file takes the same lock.
            #expect(flocked(file))
            try disk.write(pattern(4096), at: 4096)
            #expect(try disk.read(at: 4096, count: 4096) == pattern(4096))
        }
        #expect(soon { !flocked(file) })
        #expect(soon { refusal(device) == nil })
    }

    @Test func `a file under a loop device is refused`() throws {
        let directory = try TemporaryDirectory()
        let loop = try Loop(directory)
        let (device, file) = (loop.device, loop.file)
        #expect(refusal(file) == .backsLoopDevice(path: file, device: device))
        #expect(
            refusal(file)?.description
                == "\(file): is under \(device): use that, or detach it (losetup -d \(device))")
    }

    @Test func `a device whose file somebody has is refused`() throws {
        let directory = try TemporaryDirectory()
        let loop = try Loop(directory)
        let (device, file) = (loop.device, loop.file)
        let descriptor = unsafe open(file, O_RDWR | O_CLOEXEC)
        #expect(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        let holder = BackingFileHolder.process(getpid(), name: try name())
        #expect(refusal(device) == .busyBelow(device: device, path: file, holder))
        close(descriptor)
        #expect(soon { refusal(device) == nil })
    }

    @Test func `a device that ranges of are claimed is not claimed as a whole`() throws {
        let directory = try TemporaryDirectory()
        let loop = try Loop(directory)
        let device = loop.device
        let one = try BackingFile(opening: device, claiming: .range(offset: 0, length: 65536))
        #expect(soon { refusal(device, .range(offset: 65536, length: 65536)) == nil })
        guard case .busy = refusal(device, .range(offset: 0, length: 512)) else {
            Issue.record("a range was claimed twice")
            return
        }
        guard case .busy = refusal(device) else {
            Issue.record("the whole was claimed over a range")
            return
        }
        #expect(one.size == 4 << 20)
    }

    @Test func `partitions of a loop device are claimed apart`() throws {
        let directory = try TemporaryDirectory()
        let loop = try Loop(directory, ["--partscan"])
        let (device, file) = (loop.device, loop.file)
        var reactor = try makeReactor()
        for (number, start) in [("1", "0"), ("2", "2048")] {
            let status = try reactor.run("/usr/bin/addpart", [device, number, start, "2048"])
            try #require(status == 0)
        }
        do {
            let first = try BackingFile(opening: device + "p1")
            #expect(first.size == 1 << 20)
            // Each part of the file below is claimed; another one than the second's is not in its way.
            let second = try BackingFile(opening: device + "p2")
            #expect(flocked(file))
            for path in [device, device + "p1", device + "p2"] {
                guard case .busy(path, _) = refusal(path) else {
                    Issue.record("\(path) was claimed twice")
                    continue
                }
            }
            #expect(second.size == 1 << 20)
        }
        #expect(soon { refusal(device) == nil })
    }

    @Test func `a device that is read-only is refused`() throws {
        let directory = try TemporaryDirectory()
        let loop = try Loop(directory, ["--read-only"])
        let refusal = refusal(loop.device)
        // Kernels differ in who notices it.
        let denied = SystemError("open", loop.device, errno: EACCES)
        #expect(refusal == .readOnly(path: loop.device) || refusal == .system(denied))
    }

    @Test func `a device of 4 KiB sectors says so`() throws {
        let directory = try TemporaryDirectory()
        let loop = try Loop(directory, ["--sector-size", "4096"])
        let disk = try BackingFile(opening: loop.device)
        #expect(disk.blockSize == 4096)
    }

    @Test func `space of a device is deallocated`() throws {
        let directory = try TemporaryDirectory()
        let loop = try Loop(directory)
        let disk = try BackingFile(opening: loop.device)
        try disk.write(pattern(16384), at: 0)
        var reactor = try makeReactor()
        let file = try reactor.addFile(disk.descriptor)
        for (position, mode) in [(0, Deallocation.punchHole), (8192, .zeroRange)] {
            let token = Token(kind: 0, payload: UInt64(position))
            reactor.deallocate(file, at: UInt64(position), length: 4096, mode, token: token)
            _ = try reactor.turns(until: .operation(token, result: 0))
            #expect(
                try disk.read(at: UInt64(position), count: 4096)
                    == [UInt8](repeating: 0, count: 4096))
        }
        #expect(try disk.read(at: 4096, count: 4096) == Array(pattern(16384)[4096..<8192]))
    }
}

/// Whether somebody has a lock on the file.
private func flocked(_ path: String) -> Bool {
    let descriptor = unsafe open(path, O_RDWR | O_CLOEXEC)
    defer { close(descriptor) }
    return flock(descriptor, LOCK_EX | LOCK_NB) != 0
}
