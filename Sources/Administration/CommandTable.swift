import Control
import Status

extension Command {
    /// Every command, in the order of the help.
    package static let table: [Command] =
        metadata + lifeCycle + [upgrade] + parts + roles + questions + waiting

    package static func named(_ name: String) -> Command? { table.first { $0.name == name } }

    private static let metadata: [Command] = [
        Command(
            "create-md", "Make new meta data, where the configuration says.",
            discussion: """
                Asks before it replaces meta data or comes near other data: only 'yes' confirms, without \
                a terminal the answer is no (1), and what would be destroyed is refused (40). The disk \
                must not be in use (20).
                """,
            scope: .configured, action: .each { $0.createMetadata($1, $2) }),
        Command(
            "dump-md", "Print all meta data of the backing disk as text.",
            discussion: """
                The disk must not be in use (20), and its activity log must have been applied (1), as \
                attaching does.
                """,
            scope: .configured, action: .each { $0.dumpMetadata($1, force: $2.force) }),
        Command(
            "show-gi", "Print the data generations with an explanation.",
            action: .each { administrator, name, _ in administrator.showGenerations(name) }),
        Command(
            "get-gi", "Print the data generations and flags in one line.",
            action: .each { administrator, name, _ in administrator.getGenerations(name) }),
        Command(
            "set-gi", "Change the data generations and flags of a disk that is not in use.",
            discussion: """
                GENERATIONS is what get-gi prints: four numbers in hex and seven flags, between colons; \
                what is empty or missing keeps its value. Wrong generations make a resync in the wrong \
                direction, or none: asks first (1 when declined). The disk must not be in use (20).
                """,
            scope: .configured, action: .each { $0.setGenerations($1, $2) }),
        Command(
            "restore-md", "Make meta data from what dump-md printed into FILE.",
            discussion: """
                Reads all of the text before it writes anything (10 if it is no dump), asks before it \
                replaces meta data (1 when declined). If it is interrupted, every block counts as out of \
                sync. The disk must not be in use (20).
                """,
            scope: .configured, action: .each { $0.restoreMetadata($1, $2) }),
        Command(
            "verify-dump", "Check that FILE can be restored; nothing is written.",
            scope: .configured, action: .each { $0.verifyDump($1, $2) }),
        Command(
            "wipe-md", "Make the meta data invalid; only the super block is overwritten.",
            discussion: "Asks first (1 when declined). The disk must not be in use (20).",
            scope: .configured, action: .each { $0.wipeMetadata($1, force: $2.force) }),
        Command(
            "apply-al", "Mark what was active at a crash as out of sync, as attaching does.",
            discussion: "For a disk that a Linux kernel is to attach. It must not be in use (20).",
            scope: .configured,
            action: .each { administrator, name, _ in administrator.applyLog(name) }),
        Command(
            "check-resize", "Move internal meta data to the end of a disk that has grown.",
            discussion: """
                Silent if they are there already. The size the disk had is taken from --old-size, else \
                from what drbdmeta remembers in /var/lib/drbd. The disk must not be in use (20); the \
                size in use stays as it is.
                """,
            scope: .configured, action: .each { $0.checkResize($1, $2) }),
        Command(
            "outdate", "Mark the data of a disk as outdated, in use or not.",
            discussion: """
                Nobody promotes it by mistake then. A Secondary has to be disconnected (11); refused on a Primary (17) and if \
                the data are inconsistent (5).
                """,
            scope: .configured,
            action: .each { administrator, name, _ in administrator.outdate(name) }),
    ]

    private static let lifeCycle: [Command] = [
        Command(
            "up", "Start the resource: its daemon, the disk and the connection.",
            discussion: """
                Starts repd where none runs and returns when it has answered. The resource comes up \
                Secondary. What is up already stays as it is. Exit status 1 if anything failed.
                """,
            scope: .configured, action: .each { administrator, name, _ in administrator.up(name) }),
        Command(
            "down", "Demote, disconnect and detach; end the daemon.",
            discussion: """
                Refused (11) while clients use the export. Returns when the process is gone. A resource \
                that is not running is no error.
                """,
            noDaemon: .success, action: .each { $0.down($1, force: $2.force) }),
    ]

    private static let upgrade = Command(
        "upgrade", "Let the installed program take over from the running daemon.",
        discussion: """
            For a new version of repd: clients that connect again see a short pause and no error, a \
            Primary stays Primary if the peer agrees or is gone (11 otherwise). The supervisor stays the \
            old program until 'down' and 'up'.
            """,
        noDaemon: .unknownResource,
        action: .each { administrator, name, _ in administrator.upgrade(name) })

    private static let parts: [Command] = [
        Command(
            "attach", "Attach the backing disk.",
            scope: .configured,
            action: .configure(.attach) { settings, _ in .attach(settings) }),
        Command(
            "detach", "Detach the backing disk.",
            action: .tell { .detach(force: $0.force) }),
        Command(
            "connect", "Connect to the peer.",
            discussion: """
                Returns at once; 'wait-connect' waits for the peer. After a split brain, \
                --discard-my-data on one node gives up what this node has written since.
                """,
            scope: .configured, noDaemon: .unknownResource,
            action: .configure(.connect) { .connect($0, discardMyData: $1.discardMyData) }),
        Command(
            "disconnect", "End the connection to the peer: StandAlone.",
            noDaemon: .unknownConnection, action: .each { $0.disconnect($1, force: $2.force) }),
    ]

    private static let roles: [Command] = [
        Command(
            "primary", "Promote: clients may use the export.",
            discussion: """
                Needs data that is UpToDate (17 otherwise) and no other Primary (11). --force declares \
                the data of this node good: for the first promotion of a new pair, or when the good \
                copy is lost for ever.
                """,
            action: .tell { .primary(force: $0.force) }),
        Command(
            "secondary", "Demote: the export can no longer be used.",
            discussion: "Refused (11) while clients use the export; the message lists them.",
            action: .tell { .secondary(disconnectClients: $0.disconnectClients) }),
        Command(
            "invalidate", "Declare the local data bad: everything is copied from the peer.",
            discussion: "Without a daemon that has the disk, at the next connection.",
            action: .each { administrator, name, _ in administrator.invalidate(name) }),
    ]

    private static let questions: [Command] = [
        Command("role", "Print both roles, ours first.", action: .show(StatusLines.roles)),
        Command(
            "cstate", "Print the state of the connection.", action: .show(StatusLines.connections)),
        Command(
            "dstate", "Print the states of both disks, ours first.",
            discussion: "Without a daemon, what the disk itself says: one word.",
            action: .each { administrator, name, _ in administrator.diskState(name) }),
        Command(
            "status", "Print the state of resources, peers and disks.",
            discussion: "Without a name, of all that are running.",
            scope: .runningOrAll, action: .together { $0.status($1, $2) }),
        Command(
            "proc", "Print the text of /proc/drbd for all resources that are running.",
            discussion: """
                To the column what DRBD 8.4 prints, with counters and the progress of a resync. One that \
                does not answer is named on standard error, and the exit status is not 0.
                """,
            scope: .runningOrAll,
            action: .together { administrator, names, _ in administrator.proc(names) }),
    ]

    private static let waiting: [Command] = [
        Command(
            "wait-connect", "Wait until the peer is connected.",
            discussion: """
                Also ends, with status 0, when the connection has ended in StandAlone. Exit status 5 \
                when the time is over; the time is --timeout, else wfc-timeout of the configuration.
                """,
            noDaemon: .success, action: .each { $0.wait($1, for: .connection, timeout: $2.timeout) }
        ),
        Command(
            "wait-sync", "Wait until nothing is left to be copied.",
            discussion: "Shows progress. Exit status 5 when the time is over.",
            noDaemon: .success, action: .each { $0.wait($1, for: .resync, timeout: $2.timeout) }),
    ]
}
