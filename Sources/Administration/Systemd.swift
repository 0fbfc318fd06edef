import Configuration
import Glibc
import Support

/// systemd, where it runs this machine and knows the unit of repd's daemons.
enum Systemd {
    private static let unitPlaces = [
        "/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system", "/lib/systemd/system",
    ]

    /// Whether a daemon with this run directory and node name is started as `repd@RESOURCE.service`;
    /// the unit knows only the usual ones.
    static func startsDaemons(run: String, nodeName: String) -> Bool {
        guard run == "/run/repd", geteuid() == 0, nodeName == Host.node(named: nil).name,
            Host.environment("REPD_NODE_NAME") == nil
        else { return false }
        guard unsafe access("/run/systemd/system", F_OK) == 0 else { return false }
        return unitPlaces.contains { unsafe access($0 + "/repd@.service", F_OK) == 0 }
    }

    /// The name of the unit, escaped as systemd.unit(5) wants it.
    static func unit(_ resource: String) -> String {
        var text = ""
        for byte in resource.utf8 {
            let isPlain =
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ":")
                || byte == UInt8(ascii: ".") && !text.isEmpty
            if isPlain {
                text.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                let digits = String(byte, radix: 16)
                text += "\\x" + (digits.count < 2 ? "0" : "") + digits
            }
        }
        return "repd@\(text).service"
    }

    /// The program and arguments that start it, and return when the supervisor runs.
    static func start(_ resource: String) -> [String] {
        ["/bin/systemctl", "start", unit(resource)]
    }
}
