package import Configuration
package import Control

// From the configuration to what a daemon is told.

/// What a command wants to do with the settings; not every one needs all of them.
package enum SettingsPurpose: Sendable {
    /// Only the disk.
    case attach
    /// The connection, with or without the disk.
    case connect
}

extension EffectiveResource {
    /// The settings of this resource for its daemon.
    ///
    /// - Throws: all that repd cannot do and must not pass over in silence, one line for each.
    package func settings(
        for purpose: SettingsPurpose
    ) throws(AdministrationError) -> ResourceSettings {
        var complaints = volumeComplaints
        if purpose == .connect { complaints += connectionComplaints }
        guard complaints.isEmpty, let volume = volumes.first else {
            let lines = complaints.map { "\(location): in resource \(name): \($0)" }
            throw AdministrationError(
                lines.joined(separator: "\n"), exitCode: Exit.refused)
        }
        return ResourceSettings(
            resource: name, nodeName: nodeName, peerName: peerName, volume: volume.number,
            minor: volume.minor, device: volume.device, disk: volume.disk,
            metaDisk: volume.metaPlace, localAddress: try endpoint(localAddress),
            peerAddress: try endpoint(peerAddress),
            nbdListen: repd.nbdListen, options: options(of: volume))
    }

    private func endpoint(
        _ address: Address
    ) throws(AdministrationError) -> ResourceSettings.Endpoint {
        switch address.family {
        case .ipv4:
            return ResourceSettings.Endpoint(
                family: .ipv4, host: address.host, port: address.port)
        case .ipv6:
            return ResourceSettings.Endpoint(
                family: .ipv6, host: address.host, port: address.port)
        case .ssocks, .sci, .sdp:
            throw AdministrationError(
                "\(location): in resource \(name): address family \(address.family) is not "
                    + "supported: use ipv4 or ipv6", exitCode: Exit.refused)
        }
    }

    private func options(of volume: EffectiveVolume) -> ResourceSettings.Options {
        var options = ResourceSettings.Options()
        options.replicationProtocol =
            switch net.protocol {
            case .A: .A
            case .B: .B
            case .C: .C
            }
        options.timeout = net.timeout
        options.pingInterval = net.pingInterval
        options.pingTimeout = net.pingTimeout
        options.connectInterval = net.connectInterval
        options.koCount = net.koCount
        options.maximumBuffers = net.maximumBuffers
        options.maximumEpochSize = net.maximumEpochSize
        options.sendBufferSize = net.sendBufferSize
        options.receiveBufferSize = net.receiveBufferSize
        options.useRLE = net.useRLE
        options.activityLogExtents = volume.options.activityLogExtents
        options.resyncRate = volume.options.resyncRate
        options.maximumRate = volume.options.maximumRate
        options.planAhead = volume.options.planAhead
        options.delayTarget = volume.options.delayTarget
        options.fillTarget = volume.options.fillTarget
        options.diskTimeout = volume.options.diskTimeout
        options.onIOError =
            switch volume.options.onIOError {
            case .detach: nil
            case .callLocalIOError: .callHandler
            case .passOn: .passOn
            }
        options.localIOErrorHandler = handlers["local-io-error"]
        if options.localIOErrorHandler != nil { options.configurationPath = location.file }
        options.flushWaitsForPeer = repd.flushWaitsForPeer
        options.kernelDevice = repd.kernelDevice
        options.resumeTimeout = repd.resumeTimeout
        options.resumeLimit = repd.resumeLimit
        return options
    }

    // MARK: Refusals

    private var volumeComplaints: [String] {
        guard volumes.count == 1, let volume = volumes.first else {
            return [
                "\(volumes.count) volumes, repd has one for each resource: "
                    + "make a resource of every volume"
            ]
        }
        var complaints: [String] = []
        if volume.number != 0 {
            complaints.append(
                "volume \(volume.number): the only volume of a resource has to be volume 0")
        }
        switch volume.metaDisk {
        case .internal: break
        case .flexible(let path):
            if path == volume.disk {
                complaints.append(
                    "meta-disk \(path): that is the disk itself: use 'meta-disk internal'")
            }
        case .indexed(let path, let index):
            if path == volume.disk {
                complaints.append(
                    "meta-disk \(path) [\(index)]: that is the disk itself: "
                        + "use 'meta-disk internal'")
            }
            if !(0...255).contains(index) {
                complaints.append(
                    "meta-disk \(path) [\(index)]: the places of a device are 0 to 255")
            }
        }
        return complaints
    }

    /// What both nodes have to agree on and repd cannot do: to pass over it would look like a
    /// connection that fails without a reason, or like protection that is not there.
    private var connectionComplaints: [String] {
        var complaints: [String] = []
        func algorithm(_ option: String, _ value: String) {
            guard !value.isEmpty else { return }
            complaints.append(
                "'\(option) \(value)': repd cannot do this yet, and both nodes have to agree: "
                    + "remove it on both")
        }
        algorithm("cram-hmac-alg", net.peerAuthenticationAlgorithm)
        algorithm("data-integrity-alg", net.integrityAlgorithm)
        algorithm("verify-alg", net.verifyAlgorithm)
        algorithm("csums-alg", net.checksumAlgorithm)
        func policy(_ option: String, _ isDefault: Bool) {
            guard !isDefault else { return }
            complaints.append(
                "'\(option)': repd knows only 'disconnect' yet, and both nodes have to agree: "
                    + "remove it on both")
        }
        policy("after-sb-0pri", net.afterSplitBrain0 == .disconnect)
        policy("after-sb-1pri", net.afterSplitBrain1 == .disconnect)
        policy("after-sb-2pri", net.afterSplitBrain2 == .disconnect)
        if net.allowTwoPrimaries {
            complaints.append(
                "'allow-two-primaries': repd allows one Primary: remove it on both nodes")
        }
        if local.proxy != nil || peer.proxy != nil {
            complaints.append(
                "'proxy on': repd connects the nodes directly: remove the section on both nodes")
        }
        return complaints
    }
}

extension EffectiveVolume {
    /// What holds the meta data, for the daemon.
    var metaPlace: ResourceSettings.MetaPlace {
        switch metaDisk {
        case .internal: .internal
        case .flexible(let path): .flexible(path: path)
        case .indexed(let path, let index): .indexed(path: path, slot: index)
        }
    }
}
