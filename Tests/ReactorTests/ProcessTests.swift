import Glibc
import Reactor
import Support
import Testing

@Suite struct ChildTests {
    @Test(arguments: [0, 1, 10, 255])
    func `an exit status is reported`(status: Int32) throws {
        var reactor = try makeReactor()
        let reported = try reactor.run("/bin/sh", ["-c", "exit \(status)"])
        #expect(reported == status)
    }

    @Test func `a child that a signal ends is reported by the signal`() throws {
        var reactor = try makeReactor()
        let child = try reactor.spawn("/bin/sleep", arguments: ["60"], environment: [])
        let early = try reactor.turn(timeout: .milliseconds(20))
        #expect(early == 0)
        reactor.signal(SIGTERM, child: child)
        let ended = try reactor.turns { !$0.isEmpty }
        #expect(ended == [.exited(child: child, status: -SIGTERM)])
        // Nobody is there any more, which is no error.
        reactor.signal(SIGTERM, child: child)
    }

    @Test func `a program that is not there is refused`() throws {
        #expect(throws: SystemError("posix_spawn", "/nonexistent/program", errno: ENOENT)) {
            var reactor = try makeReactor()
            _ = try reactor.spawn("/nonexistent/program", arguments: [], environment: [])
        }
    }

    @Test func `a child gets its environment and no descriptor but three`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("output", size: 0)
        let output = unsafe open(path, O_WRONLY | O_CLOEXEC)
        defer { close(output) }
        // One that somebody forgot to close on exec.
        let leak = unsafe open("/dev/null", O_RDONLY)
        defer { close(leak) }
        var reactor = try makeReactor()
        let child = try reactor.spawn(
            "/bin/sh", arguments: ["-c", "ls /proc/$$/fd; echo $DRBD_RESOURCE:$HOME; cat"],
            environment: ["DRBD_RESOURCE=r0", "PATH=/bin"], output: output)
        _ = try reactor.turns(until: .exited(child: child, status: 0))
        let lines = try #require(text(path)).split(separator: "\n")
        #expect(lines == ["0", "1", "2", "r0:"])
    }

    @Test func `a child gets the descriptors it is given, by their numbers`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("output", size: 0)
        let given = try directory.file("given", size: 0)
        let output = unsafe open(path, O_WRONLY | O_CLOEXEC)
        defer { close(output) }
        let inherited = unsafe open(given, O_WRONLY | O_CLOEXEC)
        defer { close(inherited) }
        var reactor = try makeReactor()
        let child = try reactor.spawn(
            "/bin/sh", arguments: ["-c", "ls /proc/$$/fd; echo here >&3"],
            environment: ["PATH=/bin"], output: output, inherited: [inherited])
        _ = try reactor.turns(until: .exited(child: child, status: 0))
        #expect(text(path)?.split(separator: "\n") == ["0", "1", "2", "3"])
        #expect(text(given) == "here\n")
    }

    @Test func `a signal blocked for us is not blocked in a child`() throws {
        var reactor = try makeReactor()
        try reactor.watchSignals([SIGUSR2])
        defer { unblock(SIGUSR2) }
        let child = try reactor.spawn(
            "/bin/sh", arguments: ["-c", "kill -USR2 $$; sleep 60"], environment: ["PATH=/bin"])
        _ = try reactor.turns(until: .exited(child: child, status: -SIGUSR2))
    }

    @Test func `more children than places are refused`() throws {
        var reactor = try makeReactor()
        for _ in 0..<Reactor.childCount {
            _ = try reactor.spawn("/bin/true", arguments: [], environment: [])
        }
        var refusal: SystemError?
        do throws(SystemError) {
            _ = try reactor.spawn("/bin/true", arguments: [], environment: [])
        } catch { refusal = error }
        #expect(refusal?.errno == EAGAIN)
        let ended = try reactor.turns { $0.count == Reactor.childCount }
        for case .exited(_, let status) in ended { #expect(status == 0) }
        _ = try reactor.run("/bin/true", [])
    }
}

@Suite struct SignalTests {
    @Test func `signals are completions, one after the other`() throws {
        var reactor = try makeReactor()
        try reactor.watchSignals([SIGUSR1, SIGHUP])
        defer {
            unblock(SIGUSR1)
            unblock(SIGHUP)
        }
        raise(SIGUSR1)
        #expect(try reactor.turns { !$0.isEmpty } == [.signal(SIGUSR1)])
        raise(SIGHUP)
        raise(SIGUSR1)
        let both = try reactor.turns { $0.count == 2 }
        #expect(both.contains(.signal(SIGHUP)) && both.contains(.signal(SIGUSR1)))
    }
}

@Suite struct MailboxTests {
    @Test func `messages of other threads wake the reactor and arrive in order`() throws {
        var reactor = try makeReactor()
        let mailbox = try Mailbox<Int>(limit: 1000)
        let index = try reactor.watch(mailbox)
        let quiet = try reactor.turn(timeout: .milliseconds(5))
        #expect(quiet == 0)
        let worker = Worker { for number in 0..<1000 { _ = mailbox.post(number) } }
        var received: [Int] = []
        while received.count < 1000 {
            _ = try reactor.turns(until: .posted(mailbox: index))
            received += mailbox.take()
        }
        worker.join()
        #expect(received == Array(0..<1000))
        #expect(mailbox.take() == [])
    }

    @Test func `a full mailbox refuses, and works again when emptied`() throws {
        let mailbox = try Mailbox<String>(limit: 2)
        #expect(mailbox.post("a"))
        #expect(mailbox.post("b"))
        #expect(!mailbox.post("c"))
        #expect(mailbox.take() == ["a", "b"])
        #expect(mailbox.post("d"))
        #expect(mailbox.take() == ["d"])
    }
}

private func unblock(_ number: Int32) {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    unsafe sigaddset(&set, number)
    unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
}

func text(_ path: String) -> String? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 65536)
    let count = unsafe read(descriptor, &bytes, bytes.count)
    return count < 0 ? nil : String(decoding: bytes[..<count], as: UTF8.self)
}
