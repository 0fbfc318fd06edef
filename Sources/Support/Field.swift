/// One big-endian integer of a layout, by its offset in bytes.
@usableFromInline package struct Field<Value: FixedWidthInteger & BitwiseCopyable>: Sendable {
    @usableFromInline package let offset: Int
    @inlinable package init(at offset: Int) { self.offset = offset }
    /// The offset behind the field.
    @inlinable package var end: Int { offset + MemoryLayout<Value>.size }
}

/// One little-endian integer of a layout: the bitmap is the only one on disk.
@usableFromInline package struct LittleField<Value: FixedWidthInteger & BitwiseCopyable>: Sendable {
    @usableFromInline package let offset: Int
    @inlinable package init(at offset: Int) { self.offset = offset }
}

extension RawSpan {
    /// Bounds-checked against the span; no alignment is needed.
    @inlinable package subscript<Value>(field: Field<Value>) -> Value {
        unsafe Value(
            bigEndian: unsafeLoadUnaligned(fromByteOffset: field.offset, as: Value.self))
    }

    @inlinable package subscript<Value>(field: LittleField<Value>) -> Value {
        unsafe Value(
            littleEndian: unsafeLoadUnaligned(fromByteOffset: field.offset, as: Value.self))
    }
}

extension MutableRawSpan {
    @inlinable package subscript<Value>(field: Field<Value>) -> Value {
        get {
            unsafe Value(
                bigEndian: unsafeLoadUnaligned(fromByteOffset: field.offset, as: Value.self))
        }
        @_lifetime(self: copy self)
        set {
            storeBytes(of: newValue.bigEndian, toByteOffset: field.offset, as: Value.self)
        }
    }

    @inlinable package subscript<Value>(field: LittleField<Value>) -> Value {
        get {
            unsafe Value(
                littleEndian: unsafeLoadUnaligned(fromByteOffset: field.offset, as: Value.self))
        }
        @_lifetime(self: copy self)
        set {
            storeBytes(of: newValue.littleEndian, toByteOffset: field.offset, as: Value.self)
        }
    }
}
