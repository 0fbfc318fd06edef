import Glibc
import Simulator

/// Runs seeds in processes, so that a crash of the engine costs one seed and is reported with it.
struct Search {
    static let violated = UInt64.max
    static let report = UInt64.max - 1
    /// Seeds of one process: their numbers fit into a pipe that nobody reads meanwhile.
    static let piece: UInt64 = 500

    /// Seeds of the swarm, or of a directed scenario.
    private struct Piece {
        var scenario: String?
        var seeds: Range<UInt64>

        var name: String { scenario.map { "--scenario \($0) " } ?? "" }
    }

    private struct Worker {
        var process: pid_t
        var descriptor: Int32
        var piece: Piece
    }

    let arguments: [String]
    let jobs: Int
    let stopsAtFirst: Bool
    private(set) var report = Report()
    /// As they are to be given to play them again.
    private(set) var failed: [String] = []
    private var workers: [Worker] = []
    private var pieces: [Piece] = []

    init(arguments: [String], jobs: Int, stopsAtFirst: Bool) {
        self.arguments = arguments
        self.jobs = jobs
        self.stopsAtFirst = stopsAtFirst
    }

    mutating func add(_ seeds: Range<UInt64>, of scenario: String?) {
        var next = seeds.lowerBound
        while next < seeds.upperBound {
            let end = min(next + Self.piece, seeds.upperBound)
            pieces.append(Piece(scenario: scenario, seeds: next..<end))
            next = end
        }
    }

    mutating func run() {
        // The first piece that was added is the last of the row.
        pieces.reverse()
        while true {
            while workers.count < jobs, !(stopsAtFirst && !failed.isEmpty),
                let piece = pieces.popLast()
            {
                start(piece)
            }
            guard !workers.isEmpty else { return }
            wait()
        }
    }

    private mutating func start(_ piece: Piece) {
        var ends: [Int32] = [0, 0]
        guard unsafe pipe(&ends) == 0 else { fatalError("pipe: errno \(errno)") }
        var options = [
            "--seeds", "\(piece.seeds.lowerBound)..<\(piece.seeds.upperBound)", "--worker",
            "\(ends[1])",
        ]
        if let scenario = piece.scenario { options += ["--scenario", scenario] }
        let process = spawn("/proc/self/exe", ["repsim"] + options + arguments)
        close(ends[1])
        workers.append(Worker(process: process, descriptor: ends[0], piece: piece))
    }

    private func spawn(_ path: String, _ arguments: [String]) -> pid_t {
        var process: pid_t = 0
        // posix_spawn takes C strings, which live until it has returned.
        var pointers = unsafe arguments.map { unsafe strdup($0) }
        unsafe pointers.append(nil)
        defer { for index in unsafe pointers.indices { unsafe free(pointers[index]) } }
        let result = unsafe posix_spawn(&process, path, nil, nil, pointers, environ)
        guard result == 0 else { fatalError("\(path): errno \(result)") }
        return process
    }

    /// What a process that crashed had still to do is done by another one.
    private mutating func wait() {
        var status: Int32 = 0
        let process = unsafe waitpid(-1, &status, 0)
        guard let index = workers.firstIndex(where: { $0.process == process }) else { return }
        let worker = workers.remove(at: index)
        let words = read(worker.descriptor)
        close(worker.descriptor)
        var seed: UInt64 = 0
        var place = 0
        while place < words.count {
            switch words[place] {
            case Self.violated: failed.append("\(worker.piece.name)--seed \(seed)")
            case Self.report:
                report.add(counts: words[(place + 1)...].map { Int($0) })
                place = words.count
            default: seed = words[place]
            }
            place += 1
        }
        guard status & 0x7f != 0 else { return }
        failed.append("\(worker.piece.name)--seed \(seed)")
        showCrash(seed, worker.piece)
        let end = worker.piece.seeds.upperBound
        guard seed + 1 < end else { return }
        pieces.append(Piece(scenario: worker.piece.scenario, seeds: seed + 1..<end))
    }

    private func read(_ descriptor: Int32) -> [UInt64] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        var words: [UInt64] = []
        while true {
            let count = unsafe Glibc.read(descriptor, &bytes, bytes.count)
            guard count > 0 else { return words }
            for index in 0..<count / 8 {
                var word: UInt64 = 0
                for byte in (0..<8).reversed() {
                    word = word << 8 | UInt64(bytes[index * 8 + byte])
                }
                words.append(word)
            }
        }
    }

    /// Runs the seed once more for its trace.
    private func showCrash(_ seed: UInt64, _ piece: Piece) {
        print(
            "\(piece.scenario.map { "\($0) " } ?? "")seed \(seed): the engine stopped; its last events:"
        )
        fflush(nil)
        let words = arguments.filter { $0 != "--first" }.joined(separator: " ")
        let script =
            "SWIFT_BACKTRACE=enable=no /proc/$PPID/exe \(piece.name)--seed \(seed) \(words) 2>&1 "
            + "| tail -n 40"
        var status: Int32 = 0
        unsafe waitpid(spawn("/bin/sh", ["sh", "-c", script]), &status, 0)
    }
}
