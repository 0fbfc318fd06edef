import Control
import Glibc
import Logging
import Reactor
import Support

/// Backing files that somebody cuts or deletes under us. A write behind the new end of a file only
/// makes it longer again, with zeros in between, and nothing fails: so files are looked at now and then.
struct FileWatch {
    static let interval = Duration.seconds(1)

    struct Watched {
        var path: String
        var descriptor: Int32
        /// Bytes, when it was opened.
        var size: UInt64
        /// Seen with a name; there are file systems that know of none.
        var hasName = false
    }

    var files: [Watched] = []
    /// Which of them is looked at next, and when; `never` while the answer is awaited.
    var next = 0
    var at = Instant.never
    /// Counts the disks: what is answered about one that was closed meanwhile is of no use.
    var serial: UInt64 = 0
    /// An answer is awaited, perhaps about a disk that was closed meanwhile.
    var isLooking = false
}

extension Daemon {
    /// Only files change in this way: devices refuse what lies behind their end.
    mutating func watchFile(_ path: String, _ file: borrowing BackingFile) {
        guard file.kind == .file else { return }
        disk.watch.files.append(
            FileWatch.Watched(path: path, descriptor: file.descriptor, size: file.size))
        disk.watch.at = now
    }

    mutating func forgetFiles() {
        disk.watch = FileWatch(
            serial: disk.watch.serial + 1, isLooking: disk.watch.isLooking)
    }

    /// On a disk that hangs the answer may take as long as any other.
    mutating func lookAtFile() {
        guard !disk.watch.isLooking else {
            disk.watch.at = now + FileWatch.interval
            return
        }
        disk.watch.at = .never
        disk.watch.isLooking = true
        let index = disk.watch.next
        disk.watch.next = (index + 1) % disk.watch.files.count
        reactor.look(
            disk.watch.files[index].descriptor,
            token: token(.look, disk.watch.serial << 8 | UInt64(index)))
    }

    mutating func fileSeen(_ payload: UInt64, _ result: Int32) {
        disk.watch.isLooking = false
        guard payload >> 8 == disk.watch.serial else { return }
        disk.watch.at = now + FileWatch.interval / disk.watch.files.count
        // Not answered: the next time.
        guard result == 0 else { return }
        let index = Int(payload & 0xff)
        let file = disk.watch.files[index]
        let seen = reactor.seen
        if seen.size < file.size {
            refuseDisk("\(file.path) shrank from \(file.size) to \(seen.size) bytes")
        } else if seen.links > 0 {
            disk.watch.files[index].hasName = true
        } else if file.hasName {
            disk.watch.files[index].hasName = false
            let text =
                "\(file.path) was deleted: what is on it is gone as soon as this process lets it go "
                + "(detach, down, a death)"
            log.error("\(text)")
            remember(text)
        }
    }

    /// Every operation fails from now on, and the engine learns of it by the first one.
    private mutating func refuseDisk(_ reason: String) {
        let text = "\(reason): it is not used any more"
        log.error("\(text)")
        remember(text)
        disk.retired = [disk.file, disk.metaFile].compactMap(\.self)
        disk.file = nil
        disk.metaFile = nil
        disk.watch.at = .never
    }

    /// What the system says of an operation that failed, once; the engine only has its number.
    mutating func noteTrouble(_ result: Int32) {
        let reason =
            result < 0
            // strerror's text is copied at once.
            ? unsafe String(cString: strerror(-result))
            : "cut off: no space is left, or it is behind the end of the file"
        let text = "\(settings?.disk ?? "")\(settings?.metaDisk.suffix ?? ""): \(reason)"
        guard text != disk.trouble else { return }
        disk.trouble = text
        log.error("\(text)")
    }
}
