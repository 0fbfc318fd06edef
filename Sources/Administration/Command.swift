package import Control
package import Status

/// What commands may be told besides names; each looks at what it knows.
package struct CommandOptions: Equatable, Sendable {
    package var force: Bool
    package var discardMyData: Bool
    package var disconnectClients: Bool
    /// Seconds, 0 waits for ever; `nil`: not given.
    package var timeout: Int?
    package var verbose: Bool
    package var statistics: Bool
    package var json: Bool
    /// Of the activity log, for create-md and restore-md; `nil`: the usual one.
    package var logShape: LogShape?
    /// Bytes, 0 to 1 MiB.
    package var peerMaximumRequest: UInt32 = 0
    package var ignoresSanityChecks = false
    /// Bytes the disk had when check-resize finds its meta data.
    package var oldSize: UInt64?
    /// What a command takes in front of the names: a file, or generations.
    package var argument = ""

    package struct LogShape: Equatable, Sendable {
        package var stripes: UInt32
        package var stripeBlocks: UInt32

        package init(stripes: UInt32, stripeBlocks: UInt32) {
            self.stripes = stripes
            self.stripeBlocks = stripeBlocks
        }
    }

    package init(
        force: Bool = false, discardMyData: Bool = false, disconnectClients: Bool = false,
        timeout: Int? = nil, verbose: Bool = false, statistics: Bool = false, json: Bool = false
    ) {
        self.force = force
        self.discardMyData = discardMyData
        self.disconnectClients = disconnectClients
        self.timeout = timeout
        self.verbose = verbose
        self.statistics = statistics
        self.json = json
    }
}

/// One command of `repctl`: an entry of the table.
package struct Command: Sendable {
    /// Which resources a command can be asked about.
    package enum Scope: Sendable {
        /// Those of the configuration.
        case configured
        /// Those of the configuration, and others that have a daemon.
        case running
        /// As `running`; without a name, all that have a daemon.
        case runningOrAll
    }

    /// What a command says when the resource has no daemon.
    package enum NoDaemon: Sendable {
        /// Nothing: that is the state wanted, or there is nothing to wait for.
        case success
        /// In the words for an unknown minor, resource or connection.
        case unknownMinor, unknownResource, unknownConnection
    }

    /// How it is carried out.
    package enum Action: Sendable {
        /// One order to the daemon.
        case tell(@Sendable (CommandOptions) -> ControlCommand)
        /// One order to the daemon that carries the settings of the configuration.
        case configure(
            SettingsPurpose, @Sendable (ResourceSettings, CommandOptions) -> ControlCommand)
        /// One line about each volume.
        case show(@Sendable (StatusSnapshot) -> String)
        /// Anything else, one resource after the other.
        case each(@Sendable (inout Administrator, String, CommandOptions) -> Int32)
        /// Anything else, all resources in one.
        case together(@Sendable (inout Administrator, [String], CommandOptions) -> Int32)
    }

    package let name: String
    /// One line, for the list of commands.
    package let abstract: String
    package let discussion: String
    package let scope: Scope
    package let noDaemon: NoDaemon
    package let action: Action

    init(
        _ name: String, _ abstract: String, discussion: String = "", scope: Scope = .running,
        noDaemon: NoDaemon = .unknownMinor, action: Action
    ) {
        self.name = name
        self.abstract = abstract
        self.discussion = discussion
        self.scope = scope
        self.noDaemon = noDaemon
        self.action = action
    }
}
