/// A moment on a node's monotonic clock (CLOCK_BOOTTIME in production, simulated in tests).
@frozen @usableFromInline
package struct Instant: Comparable, Hashable, Sendable, BitwiseCopyable {
    /// Since an arbitrary start.
    @usableFromInline package var nanoseconds: UInt64

    @inlinable package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// Later than every moment that occurs.
    @inlinable package static var never: Instant { Instant(nanoseconds: .max) }

    @inlinable package static func < (one: Instant, other: Instant) -> Bool {
        one.nanoseconds < other.nanoseconds
    }

    /// Saturates at `never`; a negative duration goes back, at most to the start.
    @inlinable package static func + (instant: Instant, duration: Duration) -> Instant {
        let change = duration.inNanoseconds
        if change < 0 {
            let back = change.magnitude
            return Instant(nanoseconds: instant.nanoseconds &- min(back, instant.nanoseconds))
        }
        let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(UInt64(change))
        return Instant(nanoseconds: overflow ? .max : sum)
    }

    /// The time from `earlier` to `later`; zero if it is negative.
    @inlinable package static func - (later: Instant, earlier: Instant) -> Duration {
        guard later > earlier else { return .zero }
        let difference = later.nanoseconds - earlier.nanoseconds
        return .nanoseconds(Int64(clamping: difference))
    }
}

/// A `Duration` in whole nanoseconds, for sums that are made at every turn.
///
/// A `Duration` counts attoseconds in 128 bits: adding one to an `Instant` divides them, which costs
/// 250 instructions.
@frozen @usableFromInline package struct Interval: Sendable, BitwiseCopyable {
    @usableFromInline let nanoseconds: UInt64

    /// - Parameter duration: not negative; rounded down, saturating.
    package init(_ duration: Duration) {
        invariant(duration >= .zero, "an interval of \(duration)")
        nanoseconds = UInt64(duration.inNanoseconds)
    }

    @inlinable package static func + (instant: Instant, interval: Interval) -> Instant {
        let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(interval.nanoseconds)
        return Instant(nanoseconds: overflow ? .max : sum)
    }
}

extension Duration {
    /// Whole nanoseconds, saturating.
    @inlinable package var inNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        guard !overflow else { return seconds < 0 ? .min : .max }
        return whole &+ attoseconds / 1_000_000_000
    }
}
