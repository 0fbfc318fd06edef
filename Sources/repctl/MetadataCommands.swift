import Administration
import ArgumentParser

// Commands on meta data.

struct ShowGenerations: TableCommand {
    static let entry = find("show-gi")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct GetGenerations: TableCommand {
    static let entry = find("get-gi")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct ApplyLog: TableCommand {
    static let entry = find("apply-al")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct Outdate: TableCommand {
    static let entry = find("outdate")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
}

struct CreateMetadata: TableCommand {
    static let entry = find("create-md")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @OptionGroup var confirmation: Confirmation
    @OptionGroup var shape: LogShapeOptions
    @Option(
        help: ArgumentHelp(
            "Largest request that the peer is known to take, 0 to 1048576: 0 is unknown.",
            valueName: "bytes"))
    var peerMaxBioSize: UInt32 = 0
    @Flag(
        help: """
            Go on over swap, an LVM physical volume, and with external meta data a file system. One that \
            would lose its end is refused all the same.
            """)
    var ignoreSanityChecks = false

    var options: CommandOptions {
        var options = CommandOptions(force: confirmation.force)
        options.logShape = shape.logShape
        options.peerMaximumRequest = peerMaxBioSize
        options.ignoresSanityChecks = ignoreSanityChecks
        return options
    }
}

struct DumpMetadata: TableCommand {
    static let entry = find("dump-md")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Flag(help: "Even if the activity log has not been applied.")
    var force = false

    var options: CommandOptions { CommandOptions(force: force) }
}

struct SetGenerations: TableCommand {
    static let entry = find("set-gi")
    @ParentCommand var root: Repctl
    @Argument(help: "As get-gi prints them.") var generations: String
    @OptionGroup var resources: Resources
    @OptionGroup var confirmation: Confirmation

    var options: CommandOptions {
        var options = CommandOptions(force: confirmation.force)
        options.argument = generations
        return options
    }
}

struct RestoreMetadata: TableCommand {
    static let entry = find("restore-md")
    @ParentCommand var root: Repctl
    @Argument(help: "The text of a dump.") var file: String
    @OptionGroup var resources: Resources
    @OptionGroup var confirmation: Confirmation
    @OptionGroup var shape: LogShapeOptions

    var options: CommandOptions {
        var options = CommandOptions(force: confirmation.force)
        options.logShape = shape.logShape
        options.argument = file
        return options
    }
}

struct VerifyDump: TableCommand {
    static let entry = find("verify-dump")
    @ParentCommand var root: Repctl
    @Argument(help: "The text of a dump.") var file: String
    @OptionGroup var resources: Resources
    @OptionGroup var shape: LogShapeOptions

    var options: CommandOptions {
        var options = CommandOptions()
        options.logShape = shape.logShape
        options.argument = file
        return options
    }
}

struct WipeMetadata: TableCommand {
    static let entry = find("wipe-md")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @OptionGroup var confirmation: Confirmation

    var options: CommandOptions { CommandOptions(force: confirmation.force) }
}

struct CheckResize: TableCommand {
    static let entry = find("check-resize")
    @ParentCommand var root: Repctl
    @OptionGroup var resources: Resources
    @Option(
        help: ArgumentHelp("The size of the disk before it was made larger.", valueName: "bytes"))
    var oldSize: UInt64?

    var options: CommandOptions {
        var options = CommandOptions()
        options.oldSize = oldSize
        return options
    }
}

// MARK: What they share

struct Confirmation: ParsableArguments {
    @Flag(help: "Answer every question with yes.")
    var force = false
}

struct LogShapeOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Stripes of the activity log. Default: 1.", valueName: "count"))
    var alStripes: UInt32?

    @Option(
        name: .customLong("al-stripe-size-kB"),
        help: ArgumentHelp(
            "Size of a stripe in KiB, a multiple of 4; all stripes have 32 to 32768. Default: 32.",
            valueName: "KiB"))
    var alStripeSize: UInt32?

    var logShape: CommandOptions.LogShape? {
        guard alStripes != nil || alStripeSize != nil else { return nil }
        return CommandOptions.LogShape(
            stripes: alStripes ?? 1, stripeBlocks: (alStripeSize ?? 32) / 4)
    }

    func validate() throws {
        guard (alStripeSize ?? 32) % 4 == 0 else {
            throw ValidationError("--al-stripe-size-kB has to be a multiple of 4")
        }
    }
}
