import CShims
import Glibc
import Support

/// posix_spawn with everything that keeps our descriptors and signals to ourselves.
enum Spawn {
    /// - Parameters:
    ///   - output: for standard output and error, `nil` for our own.
    ///   - inherited: descriptors that the program gets as 3, 4, 5 and so on.
    static func start(
        _ path: String, _ arguments: [String], _ environment: [String], output: Int32?,
        inherited: [Int32] = []
    ) throws(SystemError) -> pid_t {
        // Above all the numbers that they get, so that none is taken before it was moved.
        var copies: [Int32] = []
        defer { for copy in copies { _ = close(copy) } }
        for descriptor in inherited {
            let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 3 + Int32(inherited.count))
            copies.append(try check(copy, "fcntl", path))
        }
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawnattr_init(&attributes)
        defer {
            unsafe posix_spawn_file_actions_destroy(&actions)
            unsafe posix_spawnattr_destroy(&attributes)
        }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        if let output {
            unsafe posix_spawn_file_actions_adddup2(&actions, output, 1)
            unsafe posix_spawn_file_actions_adddup2(&actions, output, 2)
        }
        for (index, copy) in copies.enumerated() {
            unsafe posix_spawn_file_actions_adddup2(&actions, copy, 3 + Int32(index))
        }
        // All of ours are close-on-exec; this is for those that a library opened.
        unsafe shim_spawn_close_from(&actions, 3 + Int32(copies.count))
        var none = sigset_t()
        var all = sigset_t()
        unsafe sigemptyset(&none)
        unsafe sigfillset(&all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        // A group of its own: a signal to ours is not meant for it.
        unsafe posix_spawnattr_setpgroup(&attributes, 0)
        let flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP
        unsafe posix_spawnattr_setflags(&attributes, Int16(flags))
        var process: pid_t = 0
        let code = unsafe withCStrings(arguments) { arguments in
            unsafe withCStrings(environment) { environment in
                unsafe posix_spawn(
                    &process, path, &actions, &attributes, arguments, environment)
            }
        }
        guard code == 0 else { throw SystemError("posix_spawn", path, errno: code) }
        return process
    }

    private static func withCStrings(
        _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Int32
    ) -> Int32 {
        var pointers: [UnsafeMutablePointer<CChar>?] = unsafe strings.map { unsafe strdup($0) }
        unsafe pointers.append(nil)
        defer { unsafe pointers.forEach { unsafe free($0) } }
        return unsafe body(&pointers)
    }
}
