import Glibc

/// A fixed number of trivial elements, allocated once and never moved.
///
/// Indexing is bounds-checked; there is no reference count, no uniqueness check and no exclusivity
/// check, which is what an `Array` in the same place would cost on every write.
@safe @usableFromInline package struct Table<Element: BitwiseCopyable>: ~Copyable {
    @usableFromInline let base: UnsafeMutablePointer<Element>
    @usableFromInline package let count: Int
    /// Of calloc, which alone gives zeros that take no memory.
    @usableFromInline let isFromC: Bool

    @inlinable package init(repeating element: Element, count: Int) {
        self.count = count
        isFromC = false
        unsafe base = .allocate(capacity: count)
        unsafe base.initialize(repeating: element, count: count)
    }

    deinit { unsafe isFromC ? free(base) : base.deallocate() }

    @inlinable package subscript(index: Int) -> Element {
        get {
            precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
            return unsafe base[index]
        }
        _modify {
            precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
            yield unsafe &base[index]
        }
    }

    /// Where the element lies, for the kernel. Only `Reactor` asks.
    @inlinable package func address(of index: Int) -> UnsafeMutablePointer<Element> {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
        return unsafe base + index
    }
}

extension Table where Element: FixedWidthInteger {
    /// All zero. Of a large table only what is written to takes memory.
    package init(zeros count: Int) {
        guard let memory = unsafe calloc(max(1, count), MemoryLayout<Element>.stride) else {
            // As with every other allocation: there is nothing to go on with.
            invariantFailed("no memory for \(count) elements")
        }
        self.count = count
        isFromC = true
        unsafe base = memory.bindMemory(to: Element.self, capacity: count)
    }
}

/// The free places of a table, last freed first, so that the warm one is used again.
@usableFromInline package struct FreeList: ~Copyable {
    @usableFromInline var free: Table<UInt16>
    @usableFromInline var used: Int

    /// - Parameter count: at most 65,535.
    package init(count: Int) {
        free = Table(repeating: 0, count: count)
        used = count
        for index in 0..<count { free[index] = UInt16(count - 1 - index) }
    }

    /// How many places are free.
    @inlinable package var count: Int { used }

    @inlinable package mutating func take() -> UInt16? {
        guard used > 0 else { return nil }
        used -= 1
        return free[used]
    }

    @inlinable package mutating func give(_ index: UInt16) {
        free[used] = index
        used += 1
    }
}

/// What one batch of events asks for, in order: filled by a machine, read and emptied by its caller.
///
/// Like `[Element]` with `removeAll(keepingCapacity:)`, without the uniqueness and capacity code that
/// an array's `append` and `removeAll` bring along; and it has a limit, as every queue has.
@safe @usableFromInline package struct Queue<Element: BitwiseCopyable>: ~Copyable {
    @usableFromInline let base: UnsafeMutablePointer<Element>
    @usableFromInline package let capacity: Int
    @usableFromInline package internal(set) var count = 0

    @inlinable package init(capacity: Int) {
        self.capacity = capacity
        unsafe base = .allocate(capacity: capacity)
    }

    deinit { unsafe base.deallocate() }

    @inlinable package mutating func append(_ element: Element) {
        precondition(count < capacity, "queue full")
        unsafe (base + count).initialize(to: element)
        count += 1
    }

    @inlinable package subscript(index: Int) -> Element {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
        return unsafe base[index]
    }

    @inlinable package mutating func removeAll() { count = 0 }

    /// Drops the oldest `number` elements; those behind them move up.
    @inlinable package mutating func removeFirst(_ number: Int) {
        precondition(number <= count)
        unsafe base.update(from: base + number, count: count - number)
        count -= number
    }
}

/// Bytes appended one message after the other and emptied as a whole; never reallocated.
@safe @usableFromInline package struct ByteArena: ~Copyable {
    @usableFromInline let base: UnsafeMutableRawPointer
    @usableFromInline package let capacity: Int
    @usableFromInline package internal(set) var count = 0

    package init(capacity: Int) {
        self.capacity = capacity
        unsafe base = .allocate(byteCount: capacity, alignment: 4096)
    }

    deinit { unsafe base.deallocate() }

    /// The next `size` bytes, uninitialised; the caller fills in all of them.
    @inlinable @_lifetime(&self)
    package mutating func append(_ size: Int) -> MutableRawSpan {
        precondition(size >= 0 && count + size <= capacity, "arena full")
        let place = unsafe base + count
        count += size
        let bytes = unsafe MutableRawSpan(_unsafeStart: place, byteCount: size)
        return unsafe _overrideLifetime(bytes, mutating: &self)
    }

    /// The bytes at `offset`, as appended.
    @inlinable @_lifetime(borrow self)
    package func bytes(at offset: Int, count size: Int) -> RawSpan {
        precondition(offset >= 0 && size >= 0 && offset + size <= count)
        let bytes = unsafe RawSpan(_unsafeStart: base + offset, byteCount: size)
        return unsafe _overrideLifetime(bytes, borrowing: self)
    }

    @inlinable package mutating func removeAll() { count = 0 }
}
