import Glibc
import Simulator

/// Runs seeds in processes, so that a crash of the engine costs one seed and is reported with it.
struct Search {
    static let violated = UInt64.max
    static let report = UInt64.max - 1
    /// Seeds of one process: their numbers fit into a pipe that nobody reads meanwhile.
    static let piece: UInt64 = 500

    private struct Worker {
        var process: pid_t
        var descriptor: Int32
        var end: UInt64
    }

    let arguments: [String]
    let jobs: Int
    let stopsAtFirst: Bool
    private(set) var report = Report()
    private(set) var failed: [UInt64] = []
    private var workers: [Worker] = []

    init(arguments: [String], jobs: Int, stopsAtFirst: Bool) {
        self.arguments = arguments
        self.jobs = jobs
        self.stopsAtFirst = stopsAtFirst
    }

    mutating func run(_ seeds: Range<UInt64>) {
        var next = seeds.lowerBound
        var rest: [Range<UInt64>] = []
        while true {
            while workers.count < jobs, !(stopsAtFirst && !failed.isEmpty) {
                if let again = rest.popLast() {
                    start(again)
                } else if next < seeds.upperBound {
                    let end = min(next + Self.piece, seeds.upperBound)
                    start(next..<end)
                    next = end
                } else {
                    break
                }
            }
            guard !workers.isEmpty else { return }
            if let left = wait() { rest.append(left) }
        }
    }

    private mutating func start(_ seeds: Range<UInt64>) {
        var ends: [Int32] = [0, 0]
        guard unsafe pipe(&ends) == 0 else { fatalError("pipe: errno \(errno)") }
        let options = [
            "--seeds", "\(seeds.lowerBound)..<\(seeds.upperBound)", "--worker", "\(ends[1])",
        ]
        let process = spawn("/proc/self/exe", ["repsim"] + options + arguments)
        close(ends[1])
        workers.append(Worker(process: process, descriptor: ends[0], end: seeds.upperBound))
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

    /// - Returns: what a process that crashed had still to do.
    private mutating func wait() -> Range<UInt64>? {
        var status: Int32 = 0
        let process = unsafe waitpid(-1, &status, 0)
        guard let index = workers.firstIndex(where: { $0.process == process }) else { return nil }
        let worker = workers.remove(at: index)
        let words = read(worker.descriptor)
        close(worker.descriptor)
        var seed: UInt64 = 0
        var place = 0
        while place < words.count {
            switch words[place] {
            case Self.violated: failed.append(seed)
            case Self.report:
                report.add(counts: words[(place + 1)...].map { Int($0) })
                place = words.count
            default: seed = words[place]
            }
            place += 1
        }
        guard status & 0x7f != 0 else { return nil }
        failed.append(seed)
        showCrash(seed)
        return seed + 1 < worker.end ? seed + 1..<worker.end : nil
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
    private func showCrash(_ seed: UInt64) {
        print("seed \(seed): the engine stopped; its last events:")
        fflush(nil)
        let words = arguments.filter { $0 != "--first" }.joined(separator: " ")
        let script =
            "SWIFT_BACKTRACE=enable=no /proc/$PPID/exe --seed \(seed) \(words) 2>&1 | tail -n 40"
        var status: Int32 = 0
        unsafe waitpid(spawn("/bin/sh", ["sh", "-c", script]), &status, 0)
    }
}
