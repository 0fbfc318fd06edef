import DRBDWire
import MetaDisk
import Support

/// Flushes, and what happens when the disk fails.
extension ReplicationEngine {
    mutating func startFlush(_ id: UInt16) {
        // Whatever was answered before this moment must be stable here, and there if so set.
        if transfer.open.count > 0 { closeEpoch() }
        requests[Int(id)].segments = 1
        // Where it could not be closed, the open one is closed as soon as there is room.
        requests[Int(id)].epoch =
            transfer.open.count > 0 ? transfer.open.number : transfer.open.number &- 1
        requests[Int(id)].waitsForPeer =
            (options.waitsForPeer || servesDamagedDisk) && !sabotaged(.flushIgnoresPeer)
        guard hasGoodData else {
            requests[Int(id)].error = ReplyError.io
            segmentDone(id)
            return
        }
        flushOperations += 1
        requests[Int(id)].isAtDisk = true
        output.commands.append(.flush(.client, index: id))
    }

    mutating func flushed(_ purpose: FlushPurpose, _ index: UInt16, _ errno: UInt8) {
        flushOperations -= 1
        watch.answers &+= 1
        let errno = sabotaged(.trustsFailedFlush) ? 0 : errno
        if errno != 0, purpose != .meta { diskFailed("flush error \(errno)") }
        switch purpose {
        case .client:
            requests[Int(index)].isAtDisk = false
            if requests[Int(index)].isDisowned {
                if requests[Int(index)].isReplied { freeRequests.give(index) }
                return
            }
            if errno != 0 || !diskUsable { requests[Int(index)].error = ReplyError.io }
            requests[Int(index)].flushed = true
            flushing.append(index)
            advanceFlushes()
        case .meta: metaFlushed(failed: errno != 0, errno)
        case .barrier: barrierFlushed(index, failed: errno != 0)
        case .procedure: procedureFlushed(failed: errno != 0)
        case .zeroes: finishDisk(index, failed: errno != 0, errno)
        }
    }

    /// Answers the flushes whose epoch is stable on the peer, or that need not wait for it.
    mutating func advanceFlushes() {
        for _ in 0..<flushing.count {
            guard let id = flushing.take() else { break }
            let request = requests[Int(id)]
            let stable = Int32(bitPattern: transfer.stable &- request.epoch) >= 0
            if request.error != 0 || !request.waitsForPeer || stable {
                // What the peer lacks is bits and hot extents; the generation must tell it, too.
                let isAlone = state.connection < .connected || state.peerDisk < .inconsistent
                requests[Int(id)].missed = isAlone && !resumption.isUntouched
                segmentDone(id)
            } else {
                flushing.append(id)
            }
        }
    }

    // MARK: generations

    /// The peer lacks something: our generation differs from its own, durably (safety.md S8).
    var generationIsDurable: Bool {
        if !diskInUse || meta.dead || sabotaged(.noNewGeneration) { return true }
        if owesGeneration { return false }
        return superblock.uuids.bitmap != 0 && meta.superblockDurable >= order.generationVersion
    }

    /// It resumed as Primary without the peer, which may have ended a resync unheard: its first write
    /// that the peer misses needs a generation in any case.
    private var owesGeneration: Bool {
        crashedConnected && state.role == .primary && superblock.uuids.bitmap != 0
            && !sabotaged(.trustsTarget)
    }

    /// What the peer missed has been resynced since: a generation would be a split brain between
    /// equal disks.
    var pairIsInStep: Bool {
        state.connection == .connected && state.peerDisk == .upToDate && bitmap.setCount == 0
    }

    /// Starts a new generation unless one is being tracked already.
    mutating func beginGenerationIfNeeded(_ cause: String) {
        guard superblock.uuids.bitmap == 0, !sabotaged(.noNewGeneration) else { return }
        beginGeneration(cause)
    }

    mutating func beginGeneration(_ cause: String) {
        crashedConnected = false
        resumption.isUntouched = false
        superblock.uuids.beginGeneration(random: random.next() | 8, primary: state.role == .primary)
        order.generationVersion = touchSuperblock()
        recordGeneration()
        record("new current UUID \(hex(superblock.uuids.current)): \(cause)")
    }

    /// The node is about to write alone.
    mutating func beginGenerationAlone() {
        let bitmapUUID = superblock.uuids.bitmap
        let mayHaveEnded = crashedConnected
        crashedConnected = false
        guard mayHaveEnded, bitmapUUID != 0, bitmapUUID != GenerationUUIDs.justCreated,
            !sabotaged(.noNewGeneration), !sabotaged(.trustsTarget)
        else {
            beginGenerationIfNeeded("promotion without the peer")
            return
        }
        resumption.isUntouched = false
        superblock.uuids.beginGenerationAfterCrash(
            random: random.next() | 8, primary: state.role == .primary)
        order.generationVersion = touchSuperblock()
        recordGeneration()
        record(
            "new current UUID \(hex(superblock.uuids.current)): promotion without the peer, which "
                + "may have ended a resync")
    }

    mutating func releaseGated() {
        guard gated.count > 0 else { return }
        let needsGeneration =
            (superblock.uuids.bitmap == 0 || owesGeneration) && diskInUse && servesAlone
            && !meta.dead
        if needsGeneration, !pairIsInStep, !sabotaged(.noNewGeneration) {
            if owesGeneration {
                beginGenerationAlone()
            } else {
                beginGeneration("a write that the peer lacks")
            }
            if state.connection >= .connected { sendUUIDs() }
        }
        guard generationIsDurable || pairIsInStep || !servesAlone else { return }
        while let id = gated.take() {
            if meta.dead { requests[Int(id)].error = ReplyError.io }
            reply(id)
        }
    }

    // MARK: failure

    /// A read or write of data failed: what on-io-error says.
    mutating func dataFailed(_ cause: String) {
        guard state.disk > .failed else { return }
        guard options.onIOError == .passOn else {
            diskFailed(cause)
            return
        }
        let peerIsGood = state.connection == .connected && state.peerDisk == .upToDate
        // A bit says that the peer refused a write which may be answered: it is about to tell more.
        if state.disk == .upToDate, peerIsGood, state.role == .secondary || bitmap.setCount == 0 {
            // The other copy is better now: whoever serves alone must have every block.
            if state.role == .primary { output.commands.append(.eraseRole) }
            change("\(cause), passed on; the peer's copy is the good one", .error) {
                $0.disk = .inconsistent
            }
            return
        }
        passedOn &+= 1
        // A disk that fails with everything fills no log.
        guard passedOn & (passedOn - 1) == 0 else { return }
        record("\(cause), passed on (\(passedOn) so far)", .error)
    }

    /// The disk is not used any more; what waits for it fails, the peer is told (safety.md S11).
    mutating func diskFailed(_ cause: String) {
        meta.dead = true
        attachmentFailed(cause)
        guard state.disk > .failed else { return }
        change("local disk failed: \(cause)", .error) { $0.disk = .failed }
        if options.onIOError == .callHandler { output.commands.append(.callHandler) }
        // What the peer wrote since is not on it: nobody is to be Primary with this disk by himself.
        if state.role == .primary { output.commands.append(.eraseRole) }
        failWaiting()
    }

    /// Everything that waits for the log or the end of a hold fails now.
    mutating func failWaiting() {
        transactionAbandoned()
        for _ in 0..<held.count {
            guard let id = held.take() else { break }
            failWaiting(id)
        }
    }

    private mutating func transactionAbandoned() {
        for _ in 0..<logWaiting.count {
            guard let id = logWaiting.take() else { break }
            failWaiting(id)
        }
        for _ in 0..<logQueue.count {
            guard let id = logQueue.take() else { break }
            failWaiting(id)
        }
    }

    /// A write that was not submitted: a client's fails, a peer's is answered as refused.
    mutating func failWaiting(_ id: SlotID) {
        if isOfPeer(id) {
            submitPeerWrite(id)
        } else {
            slots[Int(id)].failed = true
            settleWrite(id)
        }
    }

    /// Failed, and nothing of ours is at the disk any more: Diskless.
    mutating func advanceClosing() {
        guard state.disk == .failed, diskInUse, order.detach == nil else { return }
        guard diskOperations == 0, flushOperations == 0, meta.outstanding == 0 else { return }
        closeDisk("no operation is left at the disk")
    }

    mutating func closeDisk(_ cause: String) {
        diskInUse = false
        // Versions count anew with the next disk.
        sole = SoleCopies(count: sole.count)
        meta = MetaWriter()
        meta.dead = true
        output.commands.append(.closeDisk)
        if state.disk != .diskless { change(cause) { $0.disk = .diskless } }
        failWaiting()
    }
}

func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16, uppercase: true)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
