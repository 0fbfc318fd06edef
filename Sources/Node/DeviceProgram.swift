package import Control
import Glibc
import KernelDevice
import Logging
import Reactor

/// Hidden programs of the daemon: what may sleep in a device must not be the process that serves it.
package enum DeviceProgram {
    /// What a device's user is called in sysfs.
    static func backend(_ directory: ResourceDirectory) -> String { "repd \(directory.path)" }

    /// What `Daemon.holdDevice` starts: the line is descriptor 3.
    package static func hold(_ index: Int) -> Int32 {
        DeviceHolder.hold(index, nodes: KernelNodes(), line: 3)
    }

    /// For a device whose server is dead, with the link to it.
    package static func release(
        _ index: Int, of directory: ResourceDirectory, claims: Bool, link: String?
    ) -> (status: Int32, reason: String?) {
        let nodes = KernelNodes()
        let end = DeviceHolder.release(
            index, claims: claims, backend: backend(directory), nodes: nodes)
        if end.status == 0, let link { nodes.unlink(link, from: index) }
        return end
    }

    static func releaseArguments(_ index: Int, of directory: ResourceDirectory) -> [String] {
        let run = String(directory.path.dropLast(directory.name.count + 1))
        return [directory.name, "--run-dir", run, "--release-device", "\(index)"]
    }

    /// What an engine that did not end by itself has left, for its supervisor: nobody serves it now.
    static func cleanUp(_ directory: ResourceDirectory, log: Logger) {
        guard let text = SmallFile.read(directory.state),
            // What is no state has reserved nothing.
            let state = try? ControlCoding.decodeState(Array(text.utf8)), let index = state.device
        else { return }
        let end = release(
            index, of: directory, claims: false, link: state.settings.device)
        if let reason = end.reason { log.warning("\(reason)") }
    }
}
