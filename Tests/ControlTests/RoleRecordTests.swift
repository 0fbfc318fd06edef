import Foundation
import Glibc
import Support
import Testing

@testable import Control

@Suite final class RoleRecordTests {
    let path = "/tmp/repd-role-\(UUID().uuidString)"
    let directory: ResourceDirectory
    let file: RoleFile
    let record = RoleRecord(
        boot: "b", process: 7, disk: "/a disk/with blanks file 1:2", generations: [0x11, 0xfe])

    init() throws {
        directory = try RunDirectory(path: path).resource("r0")
        try FileManager.default.createDirectory(
            atPath: directory.path, withIntermediateDirectories: true)
        file = RoleFile(directory)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    @Test func `a record is read as it was written`() throws {
        #expect(file.read() == nil)
        try file.write(record)
        #expect(file.read() == record)
        var other = record
        (other.process, other.generations, other.device) = (12345, [1], 3)
        try file.write(other)
        #expect(file.read() == other)
        try file.erase()
        #expect(file.read() == nil)
        // Nothing to erase is what is wanted.
        try file.erase()
    }

    @Test func `bit 0 of a generation is the role and does not count`() {
        #expect(record.names(0x10))
        #expect(record.names(0xff))
        #expect(!record.names(0x12))
    }

    @Test(arguments: [
        "", "boot b", "boot b\nprocess x\ndisk d\ngenerations 1",
        "boot b\nprocess 1\ndisk d\ngenerations zz", "process 1\ndisk d\ngenerations 1",
        "boot b\nprocess 1\ndisk d\ngenerations 1\ndevice nbd0",
    ])
    func `what is no record is none`(text: String) {
        #expect(RoleRecord(text: text) == nil)
    }

    @Test func `it is written over without new space`() throws {
        try file.write(record)
        let before = try size()
        try file.write(RoleRecord(boot: "", process: 1, disk: "", generations: []))
        #expect(try size() == before)
    }

    @Test func `another file of the same name is another disk`() throws {
        let disk = path + "/disk"
        #expect(FileManager.default.createFile(atPath: disk, contents: nil))
        let identity = RoleRecord.identity(ofDisk: disk)
        #expect(RoleRecord.identity(ofDisk: disk) == identity)
        #expect(FileManager.default.createFile(atPath: disk + "2", contents: nil))
        #expect(unsafe rename(disk + "2", disk) == 0)
        #expect(RoleRecord.identity(ofDisk: disk) != identity)
    }

    @Test func `one at a time looks at the record`() throws {
        let taken = unsafe open(directory.roleLock, O_RDWR | O_CREAT, 0o600)
        defer { close(taken) }
        try file.whileLocked { _ in
            #expect(flock(taken, LOCK_EX | LOCK_NB) != 0)
        }
        #expect(flock(taken, LOCK_EX | LOCK_NB) == 0)
    }

    private func size() throws -> Int {
        try FileManager.default.attributesOfItem(atPath: directory.path + "/role")[.size] as? Int
            ?? -1
    }
}
