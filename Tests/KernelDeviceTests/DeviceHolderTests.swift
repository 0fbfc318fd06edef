import Foundation
import Glibc
import Testing

@testable import KernelDevice

/// With files in the place of devices; the disconnect is the kernel's and has scenarios.
@Suite final class DeviceHolderTests {
    let root = "/tmp/repd-hold-\(UUID().uuidString)"
    let nodes: KernelNodes

    init() throws {
        nodes = KernelNodes(sys: root + "/sys", dev: root, locks: root + "/locks")
        try FileManager.default.createDirectory(
            atPath: root, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    private func pair() -> (Int32, Int32) {
        var ends: [Int32] = [-1, -1]
        #expect(unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        return (ends[0], ends[1])
    }

    private func said(_ line: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = unsafe read(line, &bytes, bytes.count)
        return String(decoding: bytes[..<max(0, count)], as: UTF8.self)
    }

    @Test func `it says what it has done, and ends with its line`() throws {
        try "".write(toFile: root + "/nbd1", atomically: true, encoding: .utf8)
        let (one, other) = pair()
        #expect(shutdown(one, Int32(SHUT_WR)) == 0)
        #expect(DeviceHolder.hold(1, nodes: nodes, line: other) == 0)
        #expect(said(one) == "held\nflushed\n")
        close(one)
        close(other)
    }

    @Test func `a node that is not there is told`() throws {
        let (one, other) = pair()
        #expect(shutdown(one, Int32(SHUT_WR)) == 0)
        #expect(DeviceHolder.hold(1, nodes: nodes, line: other) == 0)
        #expect(said(one) == "failed \(root)/nbd1: open: No such file or directory\n")
        close(one)
        close(other)
    }

    @Test func `while that of a dead engine has the node it says nothing`() throws {
        try "".write(toFile: root + "/nbd1", atomically: true, encoding: .utf8)
        let (one, other) = pair()
        let earlier = try #require(try nodes.lockForHolder(1))
        #expect(try nodes.lockForHolder(1) == nil)
        #expect(shutdown(one, Int32(SHUT_WR)) == 0)
        #expect(DeviceHolder.hold(1, nodes: nodes, line: other) == 0)
        // Its turn comes when that one has ended.
        close(earlier)
        #expect(DeviceHolder.hold(1, nodes: nodes, line: other) == 0)
        #expect(said(one) == "held\nflushed\n")
        let later = try #require(try nodes.lockForHolder(1))
        close(later)
        close(one)
        close(other)
    }

    @Test func `what is not attached, or another's, needs no disconnect`() throws {
        let end = DeviceHolder.release(1, claims: true, backend: "r0", nodes: nodes)
        #expect(end.status == 0 && end.reason == nil)
        let place = root + "/sys/nbd1"
        try FileManager.default.createDirectory(
            atPath: place, withIntermediateDirectories: true)
        for (name, text) in [("pid", "7\n"), ("backend", "r1\n")] {
            try text.write(toFile: "\(place)/\(name)", atomically: true, encoding: .utf8)
        }
        let other = DeviceHolder.release(1, claims: true, backend: "r0", nodes: nodes)
        #expect(other.status == 0 && other.reason == nil)
        // The node does not exist: that it is ours is seen by the attempt to open it.
        let ours = DeviceHolder.release(1, claims: true, backend: "r1", nodes: nodes)
        #expect(ours.status == 1)
        #expect(ours.reason == "\(root)/nbd1: open: No such file or directory")
    }
}
