import Control
import Glibc
import Reactor
import Support

/// What a process got from the supervisor that started it, and the line to it; nothing for one that was
/// started by hand.
package struct Supervision: ~Copyable {
    /// Names of what is inherited as descriptors 3, 4, 5 and so on, with commas between.
    static let descriptors = "REPD_DESCRIPTORS"
    /// When the process before this one died: nanoseconds of CLOCK_BOOTTIME.
    static let death = "REPD_DEATH"
    /// How many have died within the last minute.
    static let deaths = "REPD_DEATHS"
    /// Whether it goes on with what was kept, also where no death is known of.
    static let restores = "REPD_RESTORE"
    /// Exit status of an engine that makes way for another one.
    package static let replaced: Int32 = 75
    static let line = "line"
    static let control = "control"
    static let nbd = "nbd"
    /// What keeps the kernel device reserved.
    static let device = "device"

    private let line: Handover?
    private var inherited: [String: Int32] = [:]
    /// When the process before this one died; `nil`: this is the first.
    let death: Instant?
    let deaths: Int
    let restores: Bool

    /// Takes over what the environment tells of; none of it is handed on to children.
    package init() {
        var numbers: [String: Int32] = [:]
        let names = RunDirectory.environment(Self.descriptors)?.split(separator: ",") ?? []
        for (index, name) in names.enumerated() {
            let descriptor = 3 + Int32(index)
            guard fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 else { continue }
            numbers[String(name)] = descriptor
        }
        line = numbers.removeValue(forKey: Self.line).map { Handover(descriptor: $0) }
        inherited = numbers
        death = RunDirectory.environment(Self.death).flatMap { UInt64($0) }
            .map { Instant(nanoseconds: $0) }
        deaths = RunDirectory.environment(Self.deaths).flatMap { Int($0) } ?? 0
        restores = RunDirectory.environment(Self.restores) != nil
        for name in [Self.descriptors, Self.death, Self.deaths, Self.restores] {
            unsafe unsetenv(name)
        }
    }

    /// Whether somebody starts this process again.
    package var isSupervised: Bool { line != nil }

    /// A listening socket that has been there all the time; it is the caller's from now on.
    mutating func take(_ name: String) -> Int32? { inherited.removeValue(forKey: name) }

    /// It lives on when this process dies.
    func keep(_ descriptor: Int32, as name: String) throws(SystemError) {
        if let line { try line.send("keep \(name)", passing: descriptor) }
    }

    func forget(_ name: String) throws(SystemError) {
        if let line { try line.send("forget \(name)") }
    }

    /// From here on its end is a death, and its successor is to go on.
    func isReady() throws(SystemError) { if let line { try line.send("ready") } }

    /// More deaths in a minute than this are answered more and more slowly.
    func limit(_ deaths: Int) throws(SystemError) {
        if let line { try line.send("limit \(deaths)") }
    }
}
