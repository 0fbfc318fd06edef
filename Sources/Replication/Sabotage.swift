/// Deliberate faults, each the lack of one mechanism of safety.md, to judge the simulator by.
///
/// They exist only where the package is built with REPD_FAULTS set (scripts/test-faults); in every
/// other build `sabotaged` is the constant false. `Scenario.lacks` says which accident shows which.
package enum Sabotage: String, CaseIterable, Sendable {
    case skipsLogWait, noBitsAtTheCut, forgetsAcknowledged, noNewGeneration, demotesAtOnce
    case readsUnordered, clearsAtSend, acksBeforeLocal, acksBeforeFlush, logBeforePages
    case forgetsPages, clearsBeforeFlush, flushIgnoresPeer, ignoresOverlap, forgetsMergedBitmap
    case promotesAtOnce, ignoresSetBits, forgetsCrash, hidesWriteErrors, trustsFailedFlush
    case forgetsStaleRequests, asksForNoProof, allowsTwoPrimaries, trustsLastBits
    case keepsOldSuperblock, discardsUncut, believesDiskless, trustsTarget, promotesUnchecked
    case resumesUnasked, hurriesGeneration, waitsForDisk, trustsRefusals, trustsDamagedDisk

    /// What is missing.
    package var sentence: String {
        switch self {
        case .skipsLogWait: "no activity log: a write does not wait for its extents (law 2)"
        case .noBitsAtTheCut: "no bit at the cut: what the peer may lack is forgotten (S4)"
        case .forgetsAcknowledged:
            "entries dropped at the ack: no bits for what no barrier proved stable (S4)"
        case .noNewGeneration: "no new UUID: a Primary goes on alone under the old one (S8)"
        case .demotesAtOnce: "demotion that does not wait until the peer has everything (S10)"
        case .readsUnordered: "resync read not ordered: it has no place among the writes (S2)"
        case .clearsAtSend: "the source clears a bit when the block is sent (S9)"
        case .acksBeforeLocal: "a write is answered before the local disk is done"
        case .acksBeforeFlush: "a barrier is acknowledged before the flush (S5)"
        case .logBeforePages:
            "the log block may be durable before the pages of the extents that it evicts (law 2)"
        case .forgetsPages: "the pages of evicted extents are not written (law 2)"
        case .clearsBeforeFlush:
            "pages whose bits a resync cleared are written before its data are flushed (S9)"
        case .flushIgnoresPeer: "a client's flush does not wait for the peer (S5, S6)"
        case .ignoresOverlap: "overlapping operations run at the same time (S1)"
        case .forgetsMergedBitmap:
            "the target does not store the merged bitmap before it begins (S9)"
        case .promotesAtOnce: "a promotion does not wait for PRIMARY_IND (S18)"
        case .ignoresSetBits: "set bits under equal generations are left alone (law 1)"
        case .forgetsCrash: "the mark of a crashed Primary is forgotten at attach"
        case .hidesWriteErrors:
            "a failed write is answered as done, and the disk is kept (S11)"
        case .trustsFailedFlush: "a flush that failed counts as done (S7)"
        case .forgetsStaleRequests:
            // The mechanism is the node's; the simulator plays the node.
            "a new connection does not wait for what an older one left undecoded (S3)"
        case .asksForNoProof: "a kernel's epoch waits for a proof that nobody asks for (S6)"
        case .allowsTwoPrimaries: "nobody minds that the other node is Primary, too (S12)"
        case .trustsLastBits: "the last 64 bits of a kernel's bitmap are believed (S13)"
        case .keepsOldSuperblock:
            // The mechanism is in MetaDisk; the simulator leaves its steps out.
            "create-md empties log and bitmap under the old super block (S14)"
        case .discardsUncut: "a discard may take more extents than the log has slots (S15)"
        case .trustsTarget:
            "a target that may have ended its resync is taken for one that has not (S8)"
        case .promotesUnchecked: "what happened while the peer was asked does not matter (S12)"
        case .trustsRefusals:
            "refusals that are still on their way when the peer attaches again make no bits (S11)"
        case .trustsDamagedDisk:
            "a disk of which blocks failed goes on without the copy that has them (I-13)"
        case .waitsForDisk: "everybody waits for a disk that does not answer (law 5)"
        case .resumesUnasked: "a killed Primary goes on without asking its peer (S18)"
        case .hurriesGeneration:
            "a killed Primary makes a generation before it has written anything (S8)"
        case .believesDiskless:
            "an Outdated disk becomes UpToDate beside any peer, as in the kernel (I-16)"
        }
    }

    #if REPD_FAULTS
        /// What is broken in this process.
        nonisolated(unsafe) package static var active: Sabotage?
    #endif
}

@inline(__always)
package func sabotaged(_ fault: Sabotage) -> Bool {
    #if REPD_FAULTS
        return unsafe Sabotage.active == fault
    #else
        return false
    #endif
}
