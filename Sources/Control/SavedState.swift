/// What a process that is started again after a death goes on with: `state` in the resource's directory.
package struct SavedState: Codable, Equatable, Sendable {
    package var version = ControlProtocol.version
    package var settings: ResourceSettings
    /// The disk was attached, or was to be.
    package var attached: Bool
    /// There was a connection, or one was looked for.
    package var connected: Bool
    /// The N of the /dev/nbdN that is reserved.
    package var device: Int?

    package init(
        settings: ResourceSettings, attached: Bool, connected: Bool, device: Int? = nil
    ) {
        self.settings = settings
        self.attached = attached
        self.connected = connected
        self.device = device
    }
}
