extension ConfigurationFile {
    /// Where a configuration is looked for when none is named, in this order.
    package static let defaultPaths = ["/etc/repd.conf", "/etc/drbd.conf"]

    /// Reads a configuration with all that it includes.
    ///
    /// - Parameters:
    ///   - path: `nil` takes the first of `defaultPaths` that can be opened; `-` is standard input.
    /// - Throws: every complaint that could be collected, in the words of `drbdadm`.
    package static func read(
        _ path: String? = nil, from files: any ConfigurationFiles = HostFiles()
    ) throws(ConfigurationError) -> ConfigurationFile {
        if let path { return try Parser.parse(path, files: files) }
        // One that cannot be opened is passed over, whatever the reason; the last one says it.
        let paths = Self.defaultPaths
        for path in paths.dropLast() where (try? files.contents(of: path)) != nil {
            return try Parser.parse(path, files: files)
        }
        do { _ = try files.contents(of: paths[paths.count - 1]) } catch {
            let names = paths.joined(separator: "' or '")
            throw ConfigurationError(cannotOpen: names, error, exitCode: 10)
        }
        return try Parser.parse(paths[paths.count - 1], files: files)
    }
}
