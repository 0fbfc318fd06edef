/// What a process that is started again after a death goes on with: `state` in the resource's directory.
package struct SavedState: Codable, Equatable, Sendable {
    package var version = ControlProtocol.version
    package var settings: ResourceSettings
    /// The disk was attached, or was to be.
    package var attached: Bool
    /// There was a connection, or one was looked for.
    package var connected: Bool

    package init(settings: ResourceSettings, attached: Bool, connected: Bool) {
        self.settings = settings
        self.attached = attached
        self.connected = connected
    }
}
