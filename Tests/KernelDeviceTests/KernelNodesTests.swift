import Foundation
import Glibc
import Testing

@testable import KernelDevice

/// Against directories that look like /sys/block and /dev.
@Suite final class KernelNodesTests {
    let root = "/tmp/repd-nodes-\(UUID().uuidString)"
    let nodes: KernelNodes
    var device: String { root + "/dev/drbd0" }

    init() throws {
        nodes = KernelNodes(sys: root + "/sys", dev: root + "/dev", locks: root + "/locks")
        try make("dev")
        for index in [10, 0, 2] {
            try make("sys/nbd\(index)/queue")
            try "".write(toFile: root + "/dev/nbd\(index)", atomically: true, encoding: .utf8)
        }
        try make("sys/nbdx")
        try make("sys/loop0")
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    private func make(_ path: String) throws {
        try FileManager.default.createDirectory(
            atPath: root + "/" + path, withIntermediateDirectories: true)
    }

    private func attach(_ index: Int, backend: String? = nil) throws {
        try "7\n".write(toFile: root + "/sys/nbd\(index)/pid", atomically: true, encoding: .utf8)
        guard let backend else { return }
        try "\(backend)\n".write(
            toFile: root + "/sys/nbd\(index)/backend", atomically: true, encoding: .utf8)
    }

    private var target: String? {
        try? FileManager.default.destinationOfSymbolicLink(atPath: device)
    }

    @Test func `nodes are found by number`() { #expect(nodes.all == [0, 2, 10]) }

    @Test func `without the module there is none`() throws {
        let none = KernelNodes(sys: root + "/none", dev: root + "/dev", locks: root + "/locks")
        #expect(throws: KernelDeviceError.noModule) { try none.reserve(device: device) }
    }

    @Test func `the first free node is reserved with a link, which goes with it`() throws {
        try attach(0)
        let reservation = try nodes.reserve(device: device)
        #expect(reservation.index == 2)
        #expect(target == root + "/dev/nbd2")
        nodes.release(reservation)
        #expect(target == nil)
    }

    @Test func `what one has reserved another does not get`() throws {
        let first = try nodes.reserve(device: device)
        let second = try nodes.reserve(device: root + "/dev/drbd1")
        #expect(first.index == 0 && second.index == 2)
        let third = try nodes.reserve(device: root + "/dev/drbd2")
        #expect(third.index == 10)
        #expect(throws: KernelDeviceError.allInUse) {
            try self.nodes.reserve(device: self.root + "/dev/drbd3")
        }
        nodes.release(second)
        let again = try nodes.reserve(device: root + "/dev/drbd3")
        #expect(again.index == 2)
        for reservation in [first, third, again] { nodes.release(reservation) }
    }

    @Test func `a node that is not there is not reserved`() throws {
        try FileManager.default.removeItem(atPath: root + "/dev/nbd0")
        let reservation = try nodes.reserve(device: device)
        #expect(reservation.index == 2)
        nodes.release(reservation)
    }

    @Test func `a copy of the lock keeps the reservation`() throws {
        let first = try nodes.reserve(device: device)
        let copy = dup(first.lock)
        close(first.lock)
        #expect(throws: KernelDeviceError.inUse(index: 0)) {
            try self.nodes.reserveAgain(0, device: self.device)
        }
        let kept = nodes.reservation(0, device: device, lock: copy)
        #expect(kept.link == device)
        nodes.release(kept)
        let again = try nodes.reserveAgain(0, device: device)
        close(again.lock)
    }

    @Test func `a node named by the configuration is used itself`() throws {
        let reservation = try nodes.reserve(device: root + "/dev/nbd10")
        #expect(reservation.index == 10 && reservation.link == nil)
        #expect(throws: KernelDeviceError.inUse(index: 10)) {
            try self.nodes.reserve(device: self.root + "/dev/nbd10")
        }
        nodes.release(reservation)
    }

    @Test func `a link that a dead one left is used again`() throws {
        try FileManager.default.createSymbolicLink(
            atPath: device, withDestinationPath: root + "/dev/nbd2")
        let reservation = try nodes.reserve(device: device)
        #expect(reservation.index == 2)
        nodes.release(reservation)
    }

    @Test func `a link to a node that somebody has attached since leads elsewhere`() throws {
        try FileManager.default.createSymbolicLink(
            atPath: device, withDestinationPath: root + "/dev/nbd2")
        try attach(2)
        let reservation = try nodes.reserve(device: device)
        #expect(reservation.index == 0)
        #expect(target == root + "/dev/nbd0")
        nodes.release(reservation)
    }

    @Test func `a link of another resource stays`() throws {
        let other = try nodes.reserve(device: device)
        #expect(throws: KernelDeviceError.self) { try self.nodes.reserve(device: self.device) }
        #expect(target == root + "/dev/nbd0")
        nodes.release(other)
    }

    @Test func `what is not our link stays`() throws {
        try FileManager.default.createSymbolicLink(
            atPath: device, withDestinationPath: "/dev/null")
        #expect(throws: KernelDeviceError.foreignNode(device, found: "a link to /dev/null")) {
            try self.nodes.reserve(device: self.device)
        }
        #expect(target == "/dev/null")
        let file = root + "/dev/drbd1"
        try "x".write(toFile: file, atomically: true, encoding: .utf8)
        #expect(throws: KernelDeviceError.foreignNode(file, found: "a file")) {
            try self.nodes.reserve(device: file)
        }
        nodes.unlink(device, from: 0)
        #expect(target == "/dev/null")
    }

    @Test func `devices are known by the name of their user`() throws {
        try attach(0, backend: "repd /run/repd/r1")
        try attach(2, backend: "repd /run/repd/r0")
        try attach(10)
        #expect(nodes.attached(by: "repd /run/repd/r0") == [2])
        #expect(nodes.backend(10) == nil)
    }

    @Test func `the time limit is written in milliseconds`() throws {
        let path = root + "/sys/nbd0/queue/io_timeout"
        try "30000\n".write(toFile: path, atomically: true, encoding: .utf8)
        try nodes.setRequestTimeout(0, .milliseconds(100))
        #expect(try String(contentsOfFile: path, encoding: .utf8).hasPrefix("100\n"))
        #expect(throws: KernelDeviceError.self) {
            try self.nodes.setRequestTimeout(2, .seconds(1))
        }
    }
}
