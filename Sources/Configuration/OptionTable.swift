/// The options of each section with their kinds and ranges (reference, sections 2.1-2.5).
///
/// Defaults are with the typed values that read the options.
enum OptionTable {
    /// In what a number is counted; a value without a suffix is already in it.
    enum Unit {
        case plain, sectors, kibibytes

        var bytes: Int {
            switch self {
            case .plain: 1
            case .sectors: 512
            case .kibibytes: 1024
            }
        }

        /// As shown behind a number that is out of range.
        var letter: String {
            switch self {
            case .plain: ""
            case .sectors: "s"
            case .kibibytes: "k"
            }
        }
    }

    enum Kind {
        case number(ClosedRange<Int>, Unit)
        /// `NAME;`, `NAME yes;` or `NAME no;`
        case boolean
        /// `NAME;`
        case flag
        /// One of these words, or one that starts with a word that ends in `-`.
        case choice([String])
        case word
        /// One word or more.
        case words
        case protocolLetter
        /// An address and a port; may be given more than once.
        case address
        /// Read and forgotten, without a complaint.
        case forgotten
    }

    typealias Section = [String: Kind]

    static let options: Section = [
        "cpu-mask": .word,
        "on-no-data-accessible": .choice(["io-error", "suspend-io"]),
    ]

    static let net: Section = [
        "protocol": .protocolLetter,
        "timeout": .number(1...600, .plain),
        "ping-int": .number(1...120, .plain),
        "ping-timeout": .number(1...300, .plain),
        "connect-int": .number(1...120, .plain),
        "ko-count": .number(0...200, .plain),
        "max-buffers": .number(32...131_072, .plain),
        "max-epoch-size": .number(1...20_000, .plain),
        "unplug-watermark": .number(1...131_072, .plain),
        "sndbuf-size": .number(0...10_485_760, .plain),
        "rcvbuf-size": .number(0...10_485_760, .plain),
        "allow-two-primaries": .boolean,
        "cram-hmac-alg": .word,
        "shared-secret": .word,
        "data-integrity-alg": .word,
        "verify-alg": .word,
        "csums-alg": .word,
        "csums-after-crash-only": .boolean,
        "after-sb-0pri": .choice([
            "disconnect", "discard-younger-primary", "discard-older-primary",
            "discard-zero-changes", "discard-least-changes", "discard-local", "discard-remote",
            "discard-node-",
        ]),
        "after-sb-1pri": .choice([
            "disconnect", "consensus", "discard-secondary", "call-pri-lost-after-sb",
            "violently-as0p",
        ]),
        "after-sb-2pri": .choice(["disconnect", "call-pri-lost-after-sb", "violently-as0p"]),
        "always-asbp": .boolean,
        "rr-conflict": .choice(["disconnect", "call-pri-lost", "violently"]),
        "tcp-cork": .boolean,
        "on-congestion": .choice(["block", "pull-ahead", "disconnect"]),
        "congestion-fill": .number(0...20_971_520, .sectors),
        "congestion-extents": .number(67...65_534, .plain),
        "use-rle": .boolean,
        "socket-check-timeout": .number(0...300, .plain),
        "delay-probe-volume": .forgotten,
        "delay-probe-interval": .forgotten,
        "throttle-threshold": .forgotten,
        "hold-off-threshold": .forgotten,
    ]

    static let disk: Section = [
        "on-io-error": .choice(["pass_on", "call-local-io-error", "detach"]),
        "fencing": .choice(["dont-care", "resource-only", "resource-and-stonith"]),
        "size": .number(0...(1 << 41), .sectors),
        "max-bio-bvecs": .number(0...128, .plain),
        "use-bmbv": .boolean,
        "disk-barrier": .boolean,
        "disk-flushes": .boolean,
        "disk-drain": .boolean,
        "md-flushes": .boolean,
        "resync-rate": .number(1...4_194_304, .kibibytes),
        "resync-after": .word,
        "al-extents": .number(67...65_534, .plain),
        "al-updates": .boolean,
        "discard-zeroes-if-aligned": .boolean,
        "disable-write-same": .boolean,
        "c-plan-ahead": .number(0...300, .plain),
        "c-delay-target": .number(1...100, .plain),
        "c-fill-target": .number(0...1_048_576, .sectors),
        "c-max-rate": .number(250...4_194_304, .kibibytes),
        "c-min-rate": .number(0...4_194_304, .kibibytes),
        "disk-timeout": .number(0...6000, .plain),
        "read-balancing": .choice([
            "prefer-local", "prefer-remote", "round-robin", "least-pending",
            "when-congested-remote", "32K-striping", "64K-striping", "128K-striping",
            "256K-striping", "512K-striping", "1M-striping",
        ]),
        "rs-discard-granularity": .number(0...1_048_576, .plain),
        "delay-probe-volume": .forgotten,
        "delay-probe-interval": .forgotten,
        "throttle-threshold": .forgotten,
        "hold-off-threshold": .forgotten,
    ]

    static let startup: Section = [
        "wfc-timeout": .number(0...300_000, .plain),
        "degr-wfc-timeout": .number(0...300_000, .plain),
        "outdated-wfc-timeout": .number(0...300_000, .plain),
        "wait-after-sb": .boolean,
        "become-primary-on": .words,
        "stacked-timeouts": .flag,
    ]

    static let handlers: Section = [
        "pri-on-incon-degr": .word, "pri-lost-after-sb": .word, "pri-lost": .word,
        "fence-peer": .word, "unfence-peer": .word, "local-io-error": .word,
        "initial-split-brain": .word, "split-brain": .word, "before-resync-target": .word,
        "after-resync-target": .word, "before-resync-source": .word, "out-of-sync": .word,
    ]

    static let proxy: Section = [
        "memlimit": .word, "read-loops": .word, "compression": .word, "bwlimit": .word,
        "sndbuf-size": .word, "rcvbuf-size": .word, "ping-timeout": .word,
    ]

    /// repd's own section.
    static let repd: Section = [
        "nbd-listen": .address,
        "flush-waits-for-peer": .boolean,
        "resume-timeout": .number(0...3600, .plain),
        "resume-limit": .number(0...1000, .plain),
        "kernel-device": .boolean,
    ]

    static let global: Section = [
        "minor-count": .number(1...255, .plain),
        "dialog-refresh": .number(0...600, .plain),
        "disable-ip-verification": .flag,
        "usage-count": .choice(["yes", "no", "ask"]),
        "udev-always-use-vnr": .flag,
        "cmd-timeout-short": .number(0...900, .plain),
        "cmd-timeout-medium": .number(0...900, .plain),
        "cmd-timeout-long": .number(0...900, .plain),
    ]

    /// Where the options of the old `syncer` section went (reference, section 1.4).
    static let syncer: [String: (section: SectionKind, name: String)] = [
        "rate": (.disk, "resync-rate"), "after": (.disk, "resync-after"),
        "al-extents": (.disk, "al-extents"), "c-plan-ahead": (.disk, "c-plan-ahead"),
        "c-delay-target": (.disk, "c-delay-target"), "c-fill-target": (.disk, "c-fill-target"),
        "c-max-rate": (.disk, "c-max-rate"), "c-min-rate": (.disk, "c-min-rate"),
        "verify-alg": (.net, "verify-alg"), "csums-alg": (.net, "csums-alg"),
        "use-rle": (.net, "use-rle"), "cpu-mask": (.options, "cpu-mask"),
        "on-no-data-accessible": (.options, "on-no-data-accessible"),
    ]

    /// Old spellings: what they are called today.
    static let renamed: [SectionKind: [String: String]] = [
        .disk: ["rate": "resync-rate", "after": "resync-after"],
        .handlers: ["outdate-peer": "fence-peer"],
    ]

    /// Old flags that mean `NAME no`.
    static let negated: [SectionKind: Set<String>] = [
        .disk: ["disk-barrier", "disk-flushes", "disk-drain", "md-flushes"],
        .net: ["tcp-cork"],
    ]

    static subscript(section: SectionKind) -> Section {
        switch section {
        case .options: options
        case .net: net
        case .disk: disk
        case .startup: startup
        case .handlers: handlers
        case .repd: repd
        }
    }
}

/// A number with an optional unit, as options are written: `4M`, `512k`, `2048s`.
enum ConfigurationNumber {
    /// - Returns: the value counted in `unit`, or `nil` if the text is no number.
    static func value(of text: String, in unit: OptionTable.Unit) -> Int? {
        var digits = text[...]
        var multiplier = unit.bytes
        if let suffix = text.last, let factor = multipliers[suffix] {
            multiplier = factor
            digits.removeLast()
        }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let number = Int(digits)
        else { return nil }
        let (product, overflow) = number.multipliedReportingOverflow(by: multiplier)
        return overflow ? nil : product / unit.bytes
    }

    private static let multipliers: [Character: Int] = [
        "s": 512, "k": 1 << 10, "K": 1 << 10, "m": 1 << 20, "M": 1 << 20, "g": 1 << 30,
        "G": 1 << 30,
    ]
}
