import DRBDWire
import NBD
import Replication
import Support

/// Two nodes whose sockets are joined, or a Primary whose peer is a script, or a Primary alone.
struct Cluster: ~Copyable {
    enum Peer: String, CaseIterable {
        /// A second engine: what both nodes do is counted.
        case engine
        /// Answers with as little as possible: what the Primary does is counted.
        case script
        /// StandAlone: every write becomes a bit.
        case none
    }

    static let diskSize: UInt64 = 64 << 20
    static let depth = 32

    var primary: Node
    var secondary: Node
    let peer: Peer
    /// Events of each kind in a turn.
    let batch: Int
    private var begun = 0
    private var requests = ByteArena(capacity: 4096)
    private var scripting = false
    private var script = Script()

    init(peer: Peer, batch: Int, options: Options, meta: MetaArea) {
        self.peer = peer
        self.batch = batch
        primary = Node(options: options, seed: 1, meta: meta)
        secondary = Node(options: options, seed: 2, meta: meta)
    }

    /// Attaches, connects, promotes, and lets the first sync end.
    mutating func start() throws(Stuck) {
        primary.order(.attach(deviceSize: Self.diskSize))
        secondary.order(.attach(deviceSize: Self.diskSize))
        try until("both disks are attached") {
            $0.primary.engine.state.disk == .inconsistent
                && $0.secondary.engine.state.disk == .inconsistent
        }
        if peer != .none {
            secondary.order(.connect(discardMyData: false))
            primary.order(.connect(discardMyData: false))
            try until("the nodes are connected") {
                $0.primary.engine.state.connection == .connected
                    && $0.secondary.engine.state.connection == .connected
            }
        }
        primary.order(.primary(force: true))
        try until("the data is the same on both") {
            $0.primary.engine.servesClients
                && ($0.peer == .none || $0.primary.engine.state.peerDisk == .upToDate)
        }
        _ = primary.engine.takeTransitions()
        _ = secondary.engine.takeTransitions()
        scripting = peer == .script
    }

    struct Stuck: Error {
        var waitedFor: String
    }

    private mutating func until(
        _ what: String, _ condition: (borrowing Cluster) -> Bool
    ) throws(Stuck) {
        for _ in 0..<100_000 {
            if condition(self) { return }
            turn()
        }
        throw Stuck(waitedFor: what)
    }

    // MARK: turns

    /// Every node ends some operations, reads what has come in, and settles.
    mutating func turn() {
        advance(by: 40_000)
        primary.complete(batch)
        if !scripting, peer != .none { Self.deliver(&secondary, &primary) }
        primary.settle()
        if scripting {
            answer()
        } else {
            secondary.complete(batch)
            if peer != .none {
                join()
                Self.deliver(&primary, &secondary)
            }
            secondary.settle()
        }
    }

    private mutating func advance(by nanoseconds: UInt64) {
        primary.now.nanoseconds += nanoseconds
        secondary.now = primary.now
    }

    /// Gives the receiver's engine what the sender has sent, packet by packet.
    private static func deliver(_ sender: inout Node, _ receiver: inout Node) {
        if receiver.dataLink != Node.noLink, !receiver.dataPaused {
            feed(&receiver, receiver.dataLink, &sender.dataOut)
        }
        if receiver.metaLink != Node.noLink {
            feed(&receiver, receiver.metaLink, &sender.metaOut)
        }
    }

    private static func feed(_ receiver: inout Node, _ link: UInt8, _ stream: inout Stream) {
        while stream.left > 0 {
            let used = receiver.engine.receive(link: link, bytes: stream.rest, now: receiver.now)
            receiver.perform()
            if let slot = receiver.arriving {
                receiver.arriving = nil
                receiver.tell(.payload(slot: slot))
            }
            stream.skip(used)
            guard used > 0, link != receiver.dataLink || !receiver.dataPaused else { return }
        }
    }

    /// Connects the two; the secondary's attempts fail until the primary has made its first.
    private mutating func join() {
        while secondary.connects.count > 0 {
            let link = secondary.connects[0]
            secondary.connects.removeFirst(1)
            guard primary.dataLink != Node.noLink, primary.metaLink == Node.noLink,
                let number = primary.engine.freeLinkNumber()
            else {
                secondary.tell(.linkClosed(link: link))
                continue
            }
            secondary.metaLink = link
            primary.metaLink = number
            primary.tell(.linkAccepted(link: number))
            secondary.tell(.linkOpened(link: link))
        }
        while primary.connects.count > 0 {
            let link = primary.connects[0]
            primary.connects.removeFirst(1)
            guard primary.dataLink == Node.noLink, let number = secondary.engine.freeLinkNumber()
            else {
                primary.tell(.linkClosed(link: link))
                continue
            }
            primary.dataLink = link
            secondary.dataLink = number
            secondary.tell(.linkAccepted(link: number))
            primary.tell(.linkOpened(link: link))
        }
    }

    /// The peer as a script: every write is acknowledged where that is wanted, every barrier is.
    private mutating func answer() {
        while primary.dataOut.left > 0 {
            let used = Self.answer(primary.dataOut, &script, &secondary.metaOut.bytes)
            primary.dataOut.skip(used)
        }
        while primary.metaOut.left > 0 {
            // Nothing but P_PING comes there from a Primary that is Connected.
            Script.header(.pingAck, 0, &secondary.metaOut.bytes)
            primary.metaOut.skip(PacketHeader.encodedSize)
        }
        Self.feed(&primary, primary.metaLink, &secondary.metaOut)
    }

    /// - Returns: how many bytes the packet at the front has.
    private static func answer(
        _ stream: borrowing Stream, _ script: inout Script, _ out: inout ByteArena
    ) -> Int {
        let size = PacketHeader.encodedSize
        let left = stream.rest
        guard let header = PacketHeader(decoding: left),
            let packet = Packet(rawValue: header.packet),
            let inline = packet.inlineLength(of: Int(header.length))
        else { invariantFailed("the engine sent no packet") }
        script.answer(packet, left.extracting(size..<size + inline), &out)
        return size + inline
    }

    // MARK: writes

    /// `count` writes of 4 KiB, up to `depth` at a time, in extents that are all active.
    mutating func write(_ count: Int) throws(Stuck) {
        let end = primary.answered + count
        var idleTurns = 0
        begun = primary.answered
        while primary.answered < end {
            var fresh = 0
            while begun < end, begun - primary.answered < Self.depth, fresh < batch {
                request(begun)
                begun += 1
                fresh += 1
            }
            let before = primary.answered
            turn()
            idleTurns = primary.answered == before ? idleTurns + 1 : 0
            guard idleTurns < 100_000 else { throw Stuck(waitedFor: "write \(before)") }
        }
    }

    private mutating func request(_ number: Int) {
        // An odd multiplier visits every block; the first 32 MiB are eight extents.
        let offset = UInt64(truncatingIfNeeded: number &* 2_654_435_761) & 8191 << 12
        requests.removeAll()
        var place = requests.append(NBDRequest.encodedSize)
        NBDRequest(.write, cookie: UInt64(number), offset: offset, length: 4096)
            .encode(into: &place)
        primary.request(Self.decode(requests))
    }

    private static func decode(_ requests: borrowing ByteArena) -> NBDRequest {
        do throws(NBDError) {
            return try NBDRequest(
                decoding: requests.bytes(at: 0, count: NBDRequest.encodedSize), .simple)
        } catch {
            invariantFailed("a request that was encoded here: \(error)")
        }
    }
}
