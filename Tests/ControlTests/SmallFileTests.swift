import Control
import Foundation
import Glibc
import Testing

@Suite final class SmallFileTests {
    private let path = "/tmp/repd-file-\(UUID().uuidString)"

    deinit {
        _ = unsafe unlink(path)
        _ = unsafe unlink(path + "2")
    }

    @Test func `a file is overwritten in its place, and nothing of the old text stays`() throws {
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        defer { close(descriptor) }
        for text in ["1234567\n", "12\n", "345\n"] {
            try SmallFile.overwrite(descriptor, path, text)
            #expect(SmallFile.read(path) == text)
        }
    }

    @Test func `a full file system is an error`() throws {
        let descriptor = unsafe open("/dev/full", O_RDWR | O_CLOEXEC)
        defer { close(descriptor) }
        let error = #expect(throws: (any Error).self) {
            try SmallFile.overwrite(descriptor, "/dev/full", "1")
        }
        #expect(error.map { "\($0)" } == "write /dev/full: No space left on device")
    }

    @Test func `an open file that was deleted or replaced is not in its place`() throws {
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        defer { close(descriptor) }
        #expect(SmallFile.isInPlace(descriptor, path))
        #expect(unsafe rename(path, path + "2") == 0)
        #expect(!SmallFile.isInPlace(descriptor, path))
        try SmallFile.replace(path, with: [1])
        #expect(!SmallFile.isInPlace(descriptor, path))
        #expect(SmallFile.isInPlace(descriptor, path + "2"))
    }
}
