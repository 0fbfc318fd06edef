/// What a daemon is told to do with its resource: the configuration of its node, resolved.
///
/// It is kept in the run directory, so that a restarted daemon goes on without being told again.
/// Numbers are in the units of the configuration (reference, section 2).
package struct ResourceSettings: Codable, Equatable, Sendable {
    package struct Endpoint: Codable, Equatable, Hashable, Sendable, CustomStringConvertible {
        package enum Family: String, Codable, Sendable { case ipv4, ipv6 }

        package var family: Family
        /// Numeric, without brackets.
        package var host: String
        package var port: UInt16

        package init(family: Family, host: String, port: UInt16) {
            self.family = family
            self.host = host
            self.port = port
        }

        package var description: String {
            family == .ipv6 ? "[\(host)]:\(port)" : "\(host):\(port)"
        }
    }

    /// When a write counts as done.
    package enum ReplicationProtocol: String, Codable, Sendable, CaseIterable { case A, B, C }

    /// What becomes of a disk that reports an error, if it is more, or less, than a detach.
    package enum OnIOError: String, Codable, Sendable { case callHandler, passOn }

    /// What holds the meta data of a volume.
    package enum MetaPlace: Codable, Equatable, Hashable, Sendable {
        /// The end of the backing disk.
        case `internal`
        /// All of another device.
        case flexible(path: String)
        /// Slot 0 to 255, of 128 MiB, of a device that volumes share.
        case indexed(path: String, slot: Int)

        /// The other device, if it is one.
        package var path: String? {
            switch self {
            case .internal: nil
            case .flexible(let path), .indexed(let path, _): path
            }
        }
    }

    package var resource: String
    package var nodeName: String
    package var peerName: String
    package var volume: Int
    package var minor: Int
    /// The device node of the configuration, such as `/dev/drbd0`.
    package var device: String
    /// The backing disk.
    package var disk: String
    package var metaDisk: MetaPlace
    package var localAddress: Endpoint
    package var peerAddress: Endpoint
    /// Where NBD clients may come from besides the socket in the run directory: `HOST:PORT` each.
    package var nbdListen: [String]
    package var options: Options

    package init(
        resource: String, nodeName: String, peerName: String, volume: Int = 0, minor: Int,
        device: String, disk: String, metaDisk: MetaPlace = .internal, localAddress: Endpoint,
        peerAddress: Endpoint, nbdListen: [String] = [], options: Options = Options()
    ) {
        self.resource = resource
        self.nodeName = nodeName
        self.peerName = peerName
        self.volume = volume
        self.minor = minor
        self.device = device
        self.disk = disk
        self.metaDisk = metaDisk
        self.localAddress = localAddress
        self.peerAddress = peerAddress
        self.nbdListen = nbdListen
        self.options = options
    }
}

extension ResourceSettings {
    /// The options that take effect, with the defaults of DRBD 8.4.
    package struct Options: Codable, Equatable, Sendable {
        package var replicationProtocol = ReplicationProtocol.C
        /// Tenths of a second.
        package var timeout = 60
        /// Seconds.
        package var pingInterval = 10
        /// Tenths of a second.
        package var pingTimeout = 5
        /// Seconds.
        package var connectInterval = 10
        package var koCount = 7
        /// Pages of 4 KiB.
        package var maximumBuffers = 2048
        package var maximumEpochSize = 2048
        /// Bytes; 0 leaves it to the system.
        package var sendBufferSize = 0
        package var receiveBufferSize = 0
        package var useRLE = true
        /// `nil`: as many as the format holds.
        package var activityLogExtents: Int?
        /// KiB/s; `nil`: 250.
        package var resyncRate: Int?
        /// KiB/s; `nil`: 102,400.
        package var maximumRate: Int?
        /// Tenths of a second; 0 makes `resyncRate` a fixed rate.
        package var planAhead = 20
        /// Tenths of a second.
        package var delayTarget = 10
        /// Sectors.
        package var fillTarget = 100
        /// Tenths of a second; 0: the disk may take any time.
        package var diskTimeout = 0
        /// `nil`: detach.
        package var onIOError: OnIOError?
        /// A line for /bin/sh.
        package var localIOErrorHandler: String?
        /// The file that all this is from, for handlers.
        package var configurationPath: String?
        /// `nil`: the daemon decides.
        package var flushWaitsForPeer: Bool?
        package var kernelDevice: Bool?
        /// Seconds.
        package var resumeTimeout = 10
        /// Deaths in a minute.
        package var resumeLimit = 5

        package init() {}
    }
}

extension ResourceSettings {
    /// What no configuration says, nil if there is nothing: the numbers have the limits of the
    /// configuration (reference, section 2), and a daemon calculates with them.
    var complaint: String? {
        var numbers: [(name: String, value: Int?, range: ClosedRange<Int>)] = [
            ("volume", volume, 0...65_535),
            ("minor", minor, 0...1_048_575),
        ]
        if case .indexed(_, let slot) = metaDisk { numbers.append(("slot", slot, 0...65_535)) }
        numbers += options.numbers
        for (name, value, range) in numbers {
            guard let value, !range.contains(value) else { continue }
            return "'\(name)' is \(value), out of range "
                + "(\(range.lowerBound)...\(range.upperBound))"
        }
        return nil
    }
}

extension ResourceSettings.Options {
    fileprivate var numbers: [(name: String, value: Int?, range: ClosedRange<Int>)] {
        [
            ("timeout", timeout, 1...600),
            ("pingInterval", pingInterval, 1...120),
            ("pingTimeout", pingTimeout, 1...300),
            ("connectInterval", connectInterval, 1...120),
            ("koCount", koCount, 0...200),
            ("maximumBuffers", maximumBuffers, 32...131_072),
            ("maximumEpochSize", maximumEpochSize, 1...20_000),
            ("sendBufferSize", sendBufferSize, 0...10_485_760),
            ("receiveBufferSize", receiveBufferSize, 0...10_485_760),
            ("activityLogExtents", activityLogExtents, 67...65_534),
            ("resyncRate", resyncRate, 1...4_194_304),
            ("maximumRate", maximumRate, 250...4_194_304),
            ("planAhead", planAhead, 0...300),
            ("delayTarget", delayTarget, 1...100),
            ("fillTarget", fillTarget, 0...1_048_576),
            ("diskTimeout", diskTimeout, 0...6000),
            ("resumeTimeout", resumeTimeout, 0...3600),
            ("resumeLimit", resumeLimit, 0...1000),
        ]
    }
}
