import Glibc

/// Where the daemons of this machine keep their sockets and records.
package struct RunDirectory: Equatable, Sendable {
    package let path: String

    package init(path: String) { self.path = path }

    /// `REPD_RUN_DIR`; else `/run/repd` for root, `$XDG_RUNTIME_DIR/repd` for others.
    package init(
        environment: (String) -> String? = RunDirectory.environment, isRoot: Bool = geteuid() == 0
    ) throws(ControlError) {
        if let given = environment("REPD_RUN_DIR"), !given.isEmpty {
            path = given
        } else if isRoot {
            path = "/run/repd"
        } else if let runtime = environment("XDG_RUNTIME_DIR"), !runtime.isEmpty {
            path = runtime + "/repd"
        } else {
            throw .noRunDirectory
        }
    }

    package static func environment(_ name: String) -> String? {
        // The value is copied before anything could change the environment.
        unsafe getenv(name).map { unsafe String(cString: $0) }
    }

    /// - Throws: `refusedName` for what is no name of a directory.
    package func resource(_ name: String) throws(ControlError) -> ResourceDirectory {
        try ResourceDirectory(name: name, in: self)
    }

    /// What keeps its resources from being seen; `nil` also if there is no such directory.
    package var trouble: String? {
        guard let directory = unsafe opendir(path) else {
            guard errno != ENOENT else { return nil }
            // strerror's text is copied at once.
            return unsafe strerror(errno).map { "\(path): \(unsafe String(cString: $0))" }
        }
        unsafe closedir(directory)
        return nil
    }

    /// The resources that have a directory, by name.
    package func resourceNames() -> [String] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            // The name lies in the entry, which lives until the next call.
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { place in
                unsafe place.withMemoryRebound(to: CChar.self, capacity: 256) {
                    unsafe String(cString: $0)
                }
            }
            guard let resource = try? resource(name) else { continue }  // Not a resource's.
            guard unsafe access(resource.controlSocket, F_OK) == 0 else { continue }
            names.append(name)
        }
        return names.sorted()
    }
}

/// The directory of one resource.
package struct ResourceDirectory: Equatable, Sendable {
    /// Longer names do not fit into the path of a socket.
    package static let maximumName = 64

    package let name: String
    package let path: String

    fileprivate init(name: String, in run: RunDirectory) throws(ControlError) {
        guard !name.isEmpty else { throw .refusedName(name, reason: "it is empty") }
        guard name != "all" else { throw .refusedName(name, reason: "it means every resource") }
        guard !name.hasPrefix(".") else { throw .refusedName(name, reason: "it begins with '.'") }
        guard !name.utf8.contains(UInt8(ascii: "/")) else {
            throw .refusedName(name, reason: "it contains '/'")
        }
        guard name.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f }) else {
            throw .refusedName(name, reason: "it contains blanks")
        }
        guard name.utf8.count <= Self.maximumName else {
            throw .refusedName(name, reason: "it is longer than \(Self.maximumName) bytes")
        }
        self.name = name
        path = run.path + "/" + name
    }

    /// Requests and replies, mode 0600.
    package var controlSocket: String { path + "/control.sock" }
    /// Clients of the export on this machine.
    package var nbdSocket: String { path + "/nbd.sock" }
    /// The settings and role that a restarted daemon goes on with.
    package var state: String { path + "/state" }
    /// Held by the engine; it has its process number.
    package var engineLock: String { path + "/repd.pid" }
    /// Held by the supervisor; it has its process number.
    package var supervisorLock: String { path + "/supervisor.pid" }
    /// Held while the role record is changed.
    package var roleLock: String { path + "/role.lock" }
    package var log: String { path + "/log" }

    /// Where the export of a volume is found.
    package func nbdURI(volume: Int) -> String {
        "nbd+unix:///\(name)\(volume == 0 ? "" : "/\(volume)")?socket=\(nbdSocket)"
    }
}
