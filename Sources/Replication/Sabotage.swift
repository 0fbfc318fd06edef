/// Deliberate faults, each the lack of one mechanism of safety.md, to judge the simulator by.
///
/// They exist only where the package is built with REPD_FAULTS set (scripts/test-faults); in every
/// other build `sabotaged` is the constant false.
package enum Sabotage: String, CaseIterable, Sendable {
    /// A write does not wait for its extents in the log (law 2).
    case skipsLogWait
    /// What the peer may lack becomes no bits when the connection is lost (S4).
    case noBitsAtTheCut
    /// What was acknowledged becomes no bits, although no barrier proved it stable (S4).
    case forgetsAcknowledged
    /// A Primary that lost its peer goes on under the old generation (S8).
    case noNewGeneration
    /// A demotion does not wait until the peer has everything (S10).
    case demotesAtOnce
    /// A read for the resync has no place in the order (S2).
    case readsUnordered
    /// The source clears a bit when the block is sent.
    case clearsAtSend
    /// A write is answered before the local disk is done.
    case acksBeforeLocal
    /// A barrier is acknowledged before the flush (S5).
    case acksBeforeFlush
    /// The log block may be durable before the pages of the extents that it evicts.
    case logBeforePages
    /// The pages of evicted extents are not written.
    case forgetsPages
    /// Pages with bits that a resync cleared are written before its data are flushed (S9).
    case clearsBeforeFlush
    /// A client's flush does not wait for the peer (S5, S6).
    case flushIgnoresPeer
    /// Overlapping operations run at the same time (S1).
    case ignoresOverlap
    /// The target does not store the merged bitmap before it begins (S9).
    case forgetsMergedBitmap
    /// A promotion does not wait for PRIMARY_IND (S18).
    case promotesAtOnce
    /// Set bits under equal generations are left alone (law 1).
    case ignoresSetBits
    /// The mark of a crashed Primary is forgotten at attach.
    case forgetsCrash
    /// A failed write is answered as done, and the disk is kept (S11).
    case hidesWriteErrors

    #if REPD_FAULTS
        /// What is broken in this process.
        nonisolated(unsafe) package static var active: Sabotage?
    #endif
}

@inline(__always)
func sabotaged(_ fault: Sabotage) -> Bool {
    #if REPD_FAULTS
        return unsafe Sabotage.active == fault
    #else
        return false
    #endif
}
