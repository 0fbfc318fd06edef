// engine-bench: 4 KiB writes through the engine and its codecs without I/O, to be counted by
// valgrind. Two runs of different length differ by their writes alone: scripts/bench --engine.
import DRBDWire
import Replication
import Support

@main struct Main {
    static let usage = """
        usage: engine-bench [WRITES [PEER [PROTOCOL [BATCH]]]]
          WRITES    default 1000000
          PEER      engine (a second node, counted too), script (default), none (standalone)
          PROTOCOL  a, b or c (default)
          BATCH     writes per turn of the loop, default 2
        """

    static func main() throws {
        let arguments = CommandLine.arguments
        func argument(_ index: Int, _ fallback: String) -> String {
            arguments.count > index ? arguments[index] : fallback
        }
        var options = Options()
        guard let count = Int(argument(1, "1000000")), count >= 0,
            let peer = Cluster.Peer(rawValue: argument(2, "script")),
            let batch = Int(argument(4, "2")), batch > 0, batch <= Cluster.depth
        else { return print(usage) }
        switch argument(3, "c") {
        case "a": options.replicationProtocol = .a
        case "b": options.replicationProtocol = .b
        case "c": options.replicationProtocol = .c
        default: return print(usage)
        }
        let meta = try MetaArea(diskSize: Cluster.diskSize)
        var cluster = Cluster(peer: peer, batch: batch, options: options, meta: meta)
        try cluster.start()
        let before = cluster.primary.answered
        try cluster.write(count)
        print("\(cluster.primary.answered - before) writes answered")
        print(
            "bytes of an event \(MemoryLayout<Event>.size), a command \(MemoryLayout<Command>.size)"
        )
    }
}
