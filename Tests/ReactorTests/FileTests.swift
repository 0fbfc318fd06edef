import Glibc
import Reactor
import Support
import Testing

@Suite struct FileTests {
    @Test(arguments: [true, false])
    func `what was written is read back, with buffers registered or not`(registered: Bool) throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("disk", size: 1 << 20)
        let disk = try BackingFile(opening: path)
        var reactor = try makeReactor { $0.registersBuffers = registered }
        let file = try reactor.addFile(disk.descriptor)
        reactor.fill(0, pattern(8192))
        reactor.write(
            file, bufferOffset: 0, length: 8192, at: 4096, durable: true,
            token: Token(kind: 1, payload: 11))
        let written = try reactor.turns { !$0.isEmpty }
        #expect(written == [.operation(Token(kind: 1, payload: 11), result: 8192)])
        reactor.read(
            file, bufferOffset: 16384, length: 8192, at: 4096, token: Token(kind: 2, payload: 12))
        reactor.flush(file, token: Token(kind: 3, payload: 13))
        let read = try reactor.turns { $0.count == 2 }
        #expect(read.contains(.operation(Token(kind: 2, payload: 12), result: 8192)))
        #expect(read.contains(.operation(Token(kind: 3, payload: 13), result: 0)))
        let contents = reactor.contents(16384, 8192)
        #expect(contents == pattern(8192))
    }

    @Test(arguments: [Deallocation.punchHole, .zeroRange])
    func `deallocated space reads as zeros`(mode: Deallocation) throws {
        let directory = try TemporaryDirectory()
        let disk = try BackingFile(opening: directory.file("disk", size: 1 << 20))
        try disk.write(pattern(16384), at: 0)
        var reactor = try makeReactor()
        let file = try reactor.addFile(disk.descriptor)
        let token = Token(kind: 0, payload: 0)
        reactor.deallocate(file, at: 4096, length: 8192, mode, token: token)
        _ = try reactor.turns(until: .operation(token, result: 0))
        let zeros = [UInt8](repeating: 0, count: 8192)
        #expect(
            try disk.read(at: 0, count: 16384)
                == Array(pattern(16384)[..<4096]) + zeros + Array(pattern(16384)[12288...]))
        // The file keeps its size.
        #expect(try disk.currentSize() == 1 << 20)
    }

    @Test func `an error is the result of its operation`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("disk", size: 4096)
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        var reactor = try makeReactor()
        let file = try reactor.addFile(descriptor)
        let token = Token(kind: 239, payload: 1 << 56 - 1)
        reactor.write(file, bufferOffset: 0, length: 512, at: 0, durable: false, token: token)
        let completions = try reactor.turns { !$0.isEmpty }
        #expect(completions == [.operation(token, result: -EBADF)])
        // Behind the end there is nothing, which the caller has to see.
        reactor.read(file, bufferOffset: 0, length: 512, at: 4096, token: token)
        let behind = try reactor.turns { !$0.isEmpty }
        #expect(behind == [.operation(token, result: 0)])
    }

    @Test func `no completion is lost when the queues of the ring are small`() throws {
        let directory = try TemporaryDirectory()
        let disk = try BackingFile(opening: directory.file("disk", size: 1 << 20))
        var reactor = try makeReactor {
            $0.submissionEntries = 4
            $0.completionEntries = 8
        }
        let file = try reactor.addFile(disk.descriptor)
        for number in 0..<20_000 {
            reactor.flush(file, token: Token(kind: 0, payload: UInt64(number)))
        }
        var seen = [Int](repeating: 0, count: 20_000)
        let all = try reactor.turns { $0.count >= 20_000 }
        for case .operation(let token, 0) in all { seen[Int(token.payload)] += 1 }
        #expect(seen.allSatisfy { $0 == 1 })
    }

    @Test func `a removed file finishes what was started`() throws {
        let directory = try TemporaryDirectory()
        let disk = try BackingFile(opening: directory.file("disk", size: 1 << 20))
        var reactor = try makeReactor()
        let file = try reactor.addFile(disk.descriptor)
        let token = Token(kind: 0, payload: 1)
        reactor.write(file, bufferOffset: 0, length: 4096, at: 0, durable: false, token: token)
        try reactor.removeFile(file)
        _ = try reactor.turns(until: .operation(token, result: 4096))
        // Its place is free again.
        for _ in 0..<Reactor.fileCount { _ = try reactor.addFile(disk.descriptor) }
        #expect(throws: SystemError("open", "more than 64 files", errno: ENFILE)) {
            var other = try makeReactor()
            for _ in 0...Reactor.fileCount { _ = try other.addFile(0) }
        }
    }

    @Test func `a buffer beyond the arena is a bug`() async {
        await #expect(processExitsWith: .failure) {
            var reactor = try makeReactor(arenaSize: 8192)
            let file = try reactor.addFile(0)
            reactor.read(
                file, bufferOffset: 4096, length: 8192, at: 0, token: Token(kind: 0, payload: 0))
        }
    }

    @Test func `a token of the reactor's own kinds is a bug`() async {
        await #expect(processExitsWith: .failure) { _ = Token(kind: 240, payload: 0) }
    }
}

@Suite struct LoopTests {
    @Test(arguments: [Reactor.TaskRunning.deferred, .cooperative, .interrupting])
    func `every way of running completions works`(mode: Reactor.TaskRunning) throws {
        var reactor = try makeReactor { $0.taskRunning = mode }
        let (near, far) = try socketPair()
        defer { close(far) }
        let index = try reactor.added(near)
        send(far, [1, 2, 3])
        try reactor.expect(index, receives: [1, 2, 3])
        #expect(reactor.report.contains("\(mode) task running"))
    }

    @Test func `a look at a file sees its size and whether it has a name`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("disk", size: 8192)
        let disk = try BackingFile(opening: path)
        var reactor = try makeReactor()
        func look(_ payload: UInt64) throws -> [UInt64] {
            let token = Token(kind: 1, payload: payload)
            reactor.look(disk.descriptor, token: token)
            _ = try reactor.turns(until: .operation(token, result: 0))
            return [reactor.seen.size, UInt64(reactor.seen.links)]
        }
        #expect(try look(1) == [8192, 1])
        #expect(unsafe truncate(path, 4096) == 0)
        #expect(try look(2) == [4096, 1])
        #expect(unsafe unlink(path) == 0)
        #expect(try look(3) == [4096, 0])
    }

    @Test func `a turn ends after its time limit and not before`() throws {
        var reactor = try makeReactor()
        let start = reactor.now()
        let count = try reactor.turn(timeout: .milliseconds(30))
        let time = reactor.now() - start
        #expect(count == 0)
        #expect(time >= .milliseconds(30))
        #expect(time < .seconds(5))
        let negative = try reactor.turn(timeout: .milliseconds(-1))
        #expect(negative == 0)
    }

    @Test func `the report says when buffers are not registered`() throws {
        let reactor = try makeReactor { $0.registersBuffers = false }
        #expect(reactor.report.contains("not registered (limit on locked memory, ulimit -l)"))
    }

    @Test func `a kernel that forbids io_uring is explained`() {
        let forbidden = SystemError("io_uring_setup", errno: EPERM)
        #expect(
            ReactorError.forbidden(forbidden, setting: 2).description
                == "io_uring_setup: Operation not permitted: kernel.io_uring_disabled is 2: set it "
                + "to 0, or with 1 add repd's group to kernel.io_uring_group")
        #expect(ReactorError.forbidden(forbidden, setting: 0).description.contains("seccomp"))
        let missing = SystemError("io_uring_setup", errno: ENOSYS)
        #expect(ReactorError.forbidden(missing, setting: nil).description.contains("container"))
    }
}
