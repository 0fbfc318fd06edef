import DRBDWire
import Status
import Testing

@Suite struct ProcTextTests {
    private let build = ProcText.Build(version: "0.1")

    /// The lines that depend on nothing but the state at that moment.
    private func stateLines(_ lines: [Substring]) -> [Substring] {
        let others = ["\tfinish:", "\tresync:", "\tact_log:", "\tblocked on"]
        return lines.filter { line in
            !others.contains { line.hasPrefix($0) } && !line.contains("% sector pos:")
        }
    }

    @Test(arguments: try ProcFixture.names(in: "proc-8.4"))
    func `what the kernel showed comes out of its values again`(_ name: String) throws {
        let text = try ProcFixture.text("proc-8.4/\(name)")
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        let volumes = try ProcFixture.volumes(lines)
        var snapshot = StatusSnapshot(resource: "r0", node: "links", peer: "rechts")
        snapshot.volumes = volumes
        let rendered = ProcText.text(of: [snapshot], build: build)
            .split(separator: "\n", omittingEmptySubsequences: false)
        #expect(rendered[0] == lines[0])
        #expect(stateLines(Array(rendered[2...])) == stateLines(Array(lines[2...])))
    }

    @Test func `every combination of states that was ever seen is shown as it was`() throws {
        let text = try ProcFixture.text("proc-8.4-all-states.txt")
        var blocks: [[Substring]] = []
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            if line.contains(": cs:") { blocks.append([]) }
            blocks[blocks.count - 1].append(line)
        }
        #expect(blocks.count == 145)
        for block in blocks {
            let volumes = try ProcFixture.volumes(block)
            let minor = try #require(volumes.first).minor
            let rendered = ProcText.volumes(volumes).split(separator: "\n")
            #expect(stateLines(rendered) == stateLines(block), "minor \(minor)")
        }
    }

    @Test func `the progress lines are those of the kernel's routine`() throws {
        let text = try ProcFixture.text("progress-vectors.txt")
        var input: [String: String] = [:]
        var generation = ""
        var wanted = ""
        var count = 0
        for line in (text + "\n\n").split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("in: ") {
                input = Dictionary(
                    uniqueKeysWithValues: line.dropFirst(4).split(separator: " ").map {
                        let pair = $0.split(separator: "=")
                        return (String(pair[0]), String(pair[1]))
                    })
            } else if line.hasPrefix("== ") {
                generation = String(line.dropFirst(3))
                wanted = ""
            } else if line.hasPrefix("\t") {
                wanted += line + "\n"
            } else if line.isEmpty, generation == "8.3.16 and 8.4" {
                #expect(try rendered(input) == wanted, "\(input)")
                count += 1
                generation = ""
            }
        }
        #expect(count == 27)
    }

    private func rendered(_ input: [String: String]) throws -> String {
        func number(_ key: String) throws -> UInt64 {
            try #require(input[key].flatMap { UInt64($0) })
        }
        var volume = VolumeStatus(number: 0, minor: 0, device: "/dev/drbd0", disk: .upToDate)
        volume.connection = try #require(
            ConnectionState.allCases.first { $0.name == input["state"] })
        volume.progress = SyncProgress(
            total: try number("total"), left: try number("left"),
            elapsedSeconds: try number("elapsed"),
            marks: [SyncProgress.Mark(age: try number("mark_age"), left: try number("mark_left"))],
            wantedRate: try number("want"))
        return ProcText.volumes([volume]).split(separator: "\n").dropFirst(2)
            .map { $0 + "\n" }.joined()
    }

    private func secondLine(_ progress: SyncProgress) -> String {
        var volume = VolumeStatus(number: 0, minor: 0, device: "/dev/drbd0", disk: .upToDate)
        volume.connection = .syncSource
        volume.progress = progress
        return ProcText.volumes([volume]).split(separator: "\n").last.map(String.init) ?? ""
    }

    @Test func `the speed is measured from the second oldest of eight marks`() {
        let marks = (0..<8).map {
            SyncProgress.Mark(age: 24 - 3 * UInt64($0), left: 9000 - 100 * UInt64($0))
        }
        var progress = SyncProgress(total: 10_000, left: 8000, elapsedSeconds: 100, marks: marks)
        // 8900 - 8000 blocks of 4 KiB in 21 s; 2000 blocks in 100 s.
        #expect(secondLine(progress).contains("speed: 168 (80) K/sec"))
        progress.marks = Array(marks[..<7])
        // Seven: the first is the start. 9000 - 8000 in 24 s.
        #expect(secondLine(progress).contains("speed: 164 (80) K/sec"))
        progress.marks = []
        #expect(secondLine(progress).contains("speed: 80 (80) K/sec"))
    }

    @Test func `pauses do not count for the mean`() {
        var progress = SyncProgress(total: 10_000, left: 8000, elapsedSeconds: 100, marks: [])
        progress.pausedSeconds = 80
        #expect(secondLine(progress).contains("(400) K/sec"))
        progress.pausedSeconds = 1000
        #expect(secondLine(progress).contains("(8,000) K/sec"))
    }

    @Test func `more left than there was is nothing done, of nothing everything`() {
        let grown = SyncProgress(total: 100, left: 200, elapsedSeconds: 0, marks: [])
        var volume = VolumeStatus(number: 0, minor: 0, device: "", disk: .upToDate)
        volume.connection = .syncTarget
        volume.progress = grown
        #expect(
            ProcText.volumes([volume]).contains("[>....................] sync'ed:  0.0% (400/400)K")
        )
        volume.progress = SyncProgress(total: 0, left: 0, elapsedSeconds: 0, marks: [])
        #expect(ProcText.volumes([volume]).contains("[===================>] sync'ed:100.0% (0/0)K"))
    }

    @Test func `above 16 TiB the percentage is counted in larger units`() {
        let bits: UInt64 = 1 << 33
        let progress = SyncProgress(total: bits, left: bits / 2, elapsedSeconds: 0, marks: [])
        var volume = VolumeStatus(number: 0, minor: 0, device: "", disk: .upToDate)
        volume.connection = .syncSource
        volume.progress = progress
        // 1000 - 65536 * 1000 / 131073; with units of 4 MiB it would be 50.0 as well, but 500.
        #expect(ProcText.volumes([volume]).contains("sync'ed: 50.1% (16777216/33554432)M"))
    }

    @Test func `skipped minors are one empty line, before the first device as well`() {
        let volumes = [7, 2, 3].map { VolumeStatus(number: 0, minor: $0, device: "") }
        #expect(
            ProcText.volumes(volumes)
                == "\n 2: cs:Unconfigured\n 3: cs:Unconfigured\n\n 7: cs:Unconfigured\n")
        #expect(
            ProcText.volumes([VolumeStatus(number: 0, minor: 123, device: "")])
                == "\n123: cs:Unconfigured\n")
    }

    @Test func `counters wrap as in the kernel, what is out of sync does not`() {
        var volume = VolumeStatus(number: 0, minor: 0, device: "", disk: .upToDate)
        volume.counters.sent = 2 << 32
        volume.counters.received = (2 << 32) + 5
        volume.outOfSync = 1 << 33
        let text = ProcText.volumes([volume])
        #expect(text.contains(" ns:0 nr:2 "))
        #expect(text.hasSuffix(" oos:8589934592\n"))
    }

    @Test func `the header names the program and its build`() {
        #expect(
            ProcText.text(of: [], build: build)
                == "version: 8.4.11 (api:1/proto:86-101)\n"
                + "GIT-hash: 0000000000000000000000000000000000000000 build by repd 0.1\n")
        let commit = String(repeating: "ab", count: 20)
        let known = ProcText.Build(version: "0.1", commit: commit)
        #expect(ProcText.text(of: [], build: known).contains("GIT-hash: \(commit) build by repd"))
    }

    @Test func `all resources make one list by minor`() {
        let first = StatusSnapshot(
            resource: "a", node: "n", peer: "p",
            volumes: [VolumeStatus(number: 0, minor: 1, device: "")])
        let second = StatusSnapshot(
            resource: "b", node: "n", peer: "p",
            volumes: [VolumeStatus(number: 0, minor: 0, device: "")])
        let text = ProcText.text(of: [first, second], build: build)
        #expect(text.hasSuffix(" 0: cs:Unconfigured\n 1: cs:Unconfigured\n"))
    }
}
