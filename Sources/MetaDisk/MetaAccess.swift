/// The device that holds meta data, as those see it who change it while it is not in use.
///
/// The simulator and the offline tools provide one; offsets are absolute, in bytes, and multiples of
/// 512 as all lengths are.
package protocol MetaAccess: ~Copyable {
    associatedtype Failure: Error

    /// Fills in all of `bytes`.
    mutating func read(at offset: UInt64, into bytes: inout MutableRawSpan) throws(Failure)
    mutating func write(_ bytes: RawSpan, at offset: UInt64) throws(Failure)
    mutating func zero(_ range: Range<UInt64>) throws(Failure)
    /// Makes durable what was written.
    mutating func flush() throws(Failure)
}

extension MetaAccess where Self: ~Copyable {
    /// The 4096 bytes at `offset`.
    package mutating func readBlock(at offset: UInt64) throws(Failure) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 4096)
        var span = block.mutableSpan
        var bytes = unsafe span.mutableBytes
        try read(at: offset, into: &bytes)
        return block
    }

    package mutating func writeSuperblock(
        _ superblock: Superblock, at offset: UInt64
    ) throws(Failure) {
        var block = [UInt8](repeating: 0, count: Superblock.encodedSize)
        block.withMutableRawBytes { bytes in superblock.encode(into: &bytes) }
        try write(block.rawBytes, at: offset)
    }

    /// Makes every block of the log say nothing.
    package mutating func initialiseLog(_ location: MetaLocation) throws(Failure) {
        var block = [UInt8](repeating: 0, count: LogTransaction.encodedSize)
        block.withMutableRawBytes { bytes in LogTransaction.encodeInitialised(into: &bytes) }
        for index in 0..<location.logBlockCount {
            let offset = location.logOffset + UInt64(index * LogTransaction.encodedSize)
            try write(block.rawBytes, at: offset)
        }
    }
}

// What the compiler calls unsafe here is looking at elements as bytes; these are bytes.
extension [UInt8] {
    package var rawBytes: RawSpan {
        @_lifetime(borrow self) get { unsafe span.bytes }
    }

    package mutating func withMutableRawBytes<Failure: Error>(
        _ body: (inout MutableRawSpan) throws(Failure) -> Void
    ) throws(Failure) {
        var span = mutableSpan
        var bytes = unsafe span.mutableBytes
        try body(&bytes)
    }
}
