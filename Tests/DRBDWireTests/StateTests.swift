import DRBDWire
import Support
import Testing

@Suite struct StatesTests {
    @Test func `names are those of the kernel, in the order of the numbers`() {
        #expect(Role.allCases.map(\.name) == ["Unknown", "Primary", "Secondary"])
        #expect(
            DiskState.allCases.map(\.name) == [
                "Diskless", "Attaching", "Failed", "Negotiating", "Inconsistent", "Outdated",
                "DUnknown", "Consistent", "UpToDate",
            ])
        #expect(
            ConnectionState.allCases.map(\.name) == [
                "StandAlone", "Disconnecting", "Unconnected", "Timeout", "BrokenPipe",
                "NetworkFailure", "ProtocolError", "TearDown", "WFConnection", "WFReportParams",
                "Connected", "StartingSyncS", "StartingSyncT", "WFBitMapS", "WFBitMapT",
                "WFSyncUUID", "SyncSource", "SyncTarget", "VerifyS", "VerifyT", "PausedSyncS",
                "PausedSyncT", "Ahead", "Behind",
            ])
        #expect(Role.allCases.map(\.rawValue) == Array(0...2))
        #expect(DiskState.allCases.map(\.rawValue) == Array(0...8))
        #expect(ConnectionState.allCases.map(\.rawValue) == Array(0...23))
    }

    @Test func `states are ordered by their numbers`() {
        #expect(Role.allCases == Role.allCases.reversed().sorted())
        #expect(DiskState.allCases == DiskState.allCases.reversed().sorted())
        #expect(ConnectionState.allCases == ConnectionState.allCases.reversed().sorted())
        #expect(DiskState.outdated < .unknown)
        #expect(ConnectionState.wfReportParams < .connected)
    }
}

@Suite struct StateWordTests {
    @Test func `the example of the reference reads as it says`() {
        let state = StateWord(
            role: .primary, peer: .secondary, connection: .connected, disk: .upToDate,
            peerDisk: .upToDate)
        #expect(state.word == 0x0001_10a9)
        #expect(StateWord(0x0001_10a9) == state)
    }

    @Test func `each flag has its bit`() {
        let flags: [(WritableKeyPath<StateWord, Bool>, UInt32, UInt32)] = [
            (\.suspended, 17, StateMask.suspended),
            (\.pausedByDependency, 18, StateMask.pausedByDependency),
            (\.pausedByPeer, 19, StateMask.pausedByPeer),
            (\.pausedByUser, 20, StateMask.pausedByUser),
            (\.suspendedNoData, 21, StateMask.suspendedNoData),
            (\.suspendedFencing, 22, StateMask.suspendedFencing),
        ]
        for (flag, bit, mask) in flags {
            var state = StateWord(
                role: .unknown, peer: .unknown, connection: .standAlone, disk: .diskless,
                peerDisk: .diskless)
            state[keyPath: flag] = true
            #expect(state.word == 1 << bit)
            #expect(mask == 1 << bit)
            #expect(StateWord(1 << bit) == state)
        }
    }

    @Test func `all values of all fields come back`() {
        for connection in ConnectionState.allCases {
            for disk in DiskState.allCases {
                for role in Role.allCases {
                    let other = Role.allCases[(Int(role.rawValue) + 1) % 3]
                    let peerDisk = DiskState.allCases[(Int(disk.rawValue) + 4) % 9]
                    let state = StateWord(
                        role: role, peer: other, connection: connection, disk: disk,
                        peerDisk: peerDisk)
                    #expect(StateWord(state.word) == state)
                }
            }
        }
    }

    @Test func `a value that does not exist is refused in every field`() {
        #expect(StateWord(3) == nil)
        #expect(StateWord(3 << 2) == nil)
        for connection in UInt32(24)...31 { #expect(StateWord(connection << 4) == nil) }
        for disk in UInt32(9)...15 {
            #expect(StateWord(disk << 9) == nil)
            #expect(StateWord(disk << 13) == nil)
        }
    }

    @Test func `bits above the fields are ignored`() {
        #expect(StateWord(0xff80_0000 | 0x0001_10a9) == StateWord(0x0001_10a9))
    }

    @Test func `masks cover the fields`() {
        let masks = [
            StateMask.role, StateMask.peer, StateMask.connection, StateMask.disk,
            StateMask.peerDisk,
        ]
        #expect(masks == [0x3, 0xc, 0x1f0, 0x1e00, 0x1_e000])
    }
}

@Suite struct MirroredTests {
    /// Requests that a kernel sends, and what they mean for the other node.
    static let requests: [(name: String, theirs: [UInt32], ours: [UInt32])] = [
        ("role=Primary", [0x3, 0x1], [0xc, 0x4]),
        ("role=Primary disk=UpToDate", [0x1e03, 0x1001], [0x1_e00c, 0x1_0004]),
        ("disk=Failed", [0x1e00, 0x400], [0x1_e000, 0x4000]),
        ("conn=Disconnecting", [0x1f0, 0x10], [0x1f0, 0x70]),
        ("conn=Disconnecting disk=Outdated", [0x1ff0, 0xa10], [0x1_e1f0, 0xa070]),
        ("conn=Disconnecting pdsk=Outdated", [0x1_e1f0, 0xa010], [0x1ff0, 0xa70]),
        ("conn=VerifyS", [0x1f0, 0x120], [0x1f0, 0x130]),
        ("conn=StartingSyncS", [0x1f0, 0xb0], [0x1f0, 0xc0]),
        ("conn=StartingSyncT", [0x1f0, 0xc0], [0x1f0, 0xb0]),
        ("conn=StandAlone", [0x1f0, 0x00], [0x1f0, 0x00]),
        ("conn=WFReportParams", [0x1f0, 0x90], [0x1f0, 0x90]),
        ("conn=Connected", [0x1f0, 0xa0], [0x1f0, 0xa0]),
        ("peer=Secondary", [0xc, 0x8], [0x3, 0x2]),
    ]

    @Test(arguments: requests)
    func `a request means the other node's fields`(
        request: (name: String, theirs: [UInt32], ours: [UInt32])
    ) {
        let ours = mirrored(mask: request.theirs[0], value: request.theirs[1])
        #expect(ours?.mask == request.ours[0])
        #expect(ours?.value == request.ours[1])
    }

    @Test func `a connection state that nobody may ask for is refused`() {
        let legal: Set<UInt32> = [0, 1, 9, 10, 11, 12, 18]
        for connection in UInt32(0)...31 {
            let ours = mirrored(mask: 0x1f0, value: connection << 4)
            #expect((ours != nil) == legal.contains(connection), "\(connection)")
        }
    }

    @Test func `half of the connection field is refused`() {
        for mask in UInt32(1)...30 { #expect(mirrored(mask: mask << 4, value: 0) == nil) }
    }

    @Test func `a connection state that is not asked for is not looked at`() {
        let ours = mirrored(mask: 0x3, value: 0x1 | 0x130)
        #expect(ours?.mask == 0xc)
        #expect(ours?.value == 0x4)
    }

    @Test func `a pause of the peer's own, of either kind, is a pause by the peer`() {
        for bit in [StateMask.pausedByDependency, StateMask.pausedByUser] {
            let ours = mirrored(mask: bit, value: bit)
            #expect(ours?.mask == StateMask.pausedByPeer)
            #expect(ours?.value == StateMask.pausedByPeer)
        }
        for bit in [
            StateMask.pausedByPeer, StateMask.suspended, StateMask.suspendedNoData,
            StateMask.suspendedFencing,
        ] {
            let ours = mirrored(mask: bit, value: bit)
            #expect(ours?.mask == 0)
            #expect(ours?.value == 0)
        }
    }

    @Test func `mirroring roles and disks twice changes nothing`() {
        var random = RandomSource(seed: 1)
        let fields = StateMask.role | StateMask.peer | StateMask.disk | StateMask.peerDisk
        for _ in 0..<1000 {
            let mask = UInt32(truncatingIfNeeded: random.next()) & fields
            let value = UInt32(truncatingIfNeeded: random.next()) & fields
            let once = mirrored(mask: mask, value: value)
            let twice = once.flatMap { mirrored(mask: $0.mask, value: $0.value) }
            #expect(twice?.mask == mask)
            #expect(twice?.value == value)
        }
    }
}

@Suite struct StateCodeTests {
    @Test func `codes are those of the reference`() {
        let codes: [StateCode] = [
            .cwSuccess, .nothingToDo, .success, .unknownError, .twoPrimaries, .noUpToDateDisk,
            .noLocalDisk, .noRemoteDisk, .connectedOutdates, .primaryNotOutdated, .resyncRunning,
            .alreadyStandAlone, .failedByPeer, .isDiskless, .deviceInUse, .noNetConfiguration,
            .noVerifyAlgorithm, .needConnection, .lowerThanOutdated, .notSupported,
            .inTransientState, .concurrentChange, .otherVolumePrimary, .outdateWithoutConnection,
        ]
        #expect(codes == StateCode.allCases)
        #expect(codes.map(\.rawValue) == [3, 2, 1, 0, -1, -2] + (4...21).map { -$0 })
        #expect(StateCode(rawValue: -3) == nil)
        #expect(StateCode(rawValue: -22) == nil)
    }

    @Test(arguments: [
        (StateCode.twoPrimaries, "Multiple primaries not allowed by config"),
        (.noUpToDateDisk, "Need access to UpToDate data"),
        (.primaryNotOutdated, "Refusing to be Primary while peer is not outdated"),
        (.failedByPeer, "State change was refused by peer node"),
        (.needConnection, "Need a connection to start verify or resync"),
        (.outdateWithoutConnection, "Need a connection for a graceful disconnect/outdate peer"),
    ])
    func `refusals have the kernel's words`(code: StateCode, text: String) {
        #expect(code.text == text)
    }

    @Test func `no two refusals read alike`() {
        let refusals = StateCode.allCases.filter { $0.rawValue < 1 }
        #expect(Set(refusals.map(\.text)).count == refusals.count)
    }
}
