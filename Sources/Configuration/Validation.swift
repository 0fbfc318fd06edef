/// What makes sense only when all resources are known (reference, sections 1.3 and 3.1).
enum Validation {
    /// - Throws: all complaints at once; mere warnings go into the configuration.
    static func check(_ file: inout ConfigurationFile) throws(ConfigurationError) {
        var complaints: [String] = []
        for index in file.resources.indices {
            complaints += becomePrimary(file.resources[index])
            checkResyncAfter(index, in: &file)
        }
        warnAboutSharedDisks(&file)
        guard complaints.isEmpty else { throw ConfigurationError(complaints) }
    }

    private static func becomePrimary(_ resource: ResourceConfiguration) -> [String] {
        let place = "\(resource.location): in resource \(resource.name):\n"
        let hosts = Set(resource.hosts.flatMap(\.names))
        return resource.sections.startup.all("become-primary-on").compactMap { entry in
            if entry.text == "both" {
                guard resource.sections.net["allow-two-primaries"]?.text != "yes" else {
                    return nil
                }
                return place
                    + "become-primary-on is set to both, but allow-two-primaries is not set."
            }
            guard !hosts.contains(entry.text) else { return nil }
            return place
                + "\tbecome-primary-on contains '\(entry.text)', "
                + "which is not named with the 'on' sections."
        }
    }

    /// A dependency on nobody is left out, as DRBD's tool does without a terminal.
    private static func checkResyncAfter(_ index: Int, in file: inout ConfigurationFile) {
        let resource = file.resources[index]
        guard let entry = resource.sections.disk["resync-after"] else { return }
        let name = entry.text.split(separator: "/").first.map(String.init) ?? ""
        guard file.resource(named: name) == nil, file.resource(named: entry.text) == nil else {
            return
        }
        file.warnings.append(
            "\(resource.location): in resource \(resource.name):\n"
                + "\tresource '\(name)' mentioned in 'resync-after' option is not known.")
        file.resources[index].own.disk.entries.removeAll { $0.name == "resync-after" }
        file.resources[index].sections.disk.entries.removeAll { $0.name == "resync-after" }
    }

    /// DRBD's tool says nothing; the second attach would fail.
    private static func warnAboutSharedDisks(_ file: inout ConfigurationFile) {
        var first: [String: String] = [:]
        for resource in file.resources {
            for host in resource.hosts {
                for (name, volume) in host.names.flatMap({ name in
                    host.volumes.map { (name, $0) }
                }) {
                    guard let disk = volume.disk else { continue }
                    let user = "\(resource.name)/\(volume.number)"
                    guard let other = first.updateValue(user, forKey: name + ":" + disk) else {
                        continue
                    }
                    file.warnings.append(
                        "\(volume.diskLocation ?? volume.location): WARN: \(user) and \(other) have the same disk "
                            + "\(disk) on \(name)")
                }
            }
        }
    }
}
