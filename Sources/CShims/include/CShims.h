// The only C. liburing's functions import into Swift as they are; macros, flags and what the
// importer cannot see are named here.
//
// Glibc's structures belong to this module as well as to Swift's Glibc, whichever the compiler meets
// first: a file that uses members of stat, sockaddr and the like imports both.
#ifndef REPD_CSHIMS_H
#define REPD_CSHIMS_H
// Before anything that asks for more of Glibc, as liburing.h does: with _GNU_SOURCE or _XOPEN_SOURCE
// fd_set has other members than in Swift's Glibc module, and a clean build then may or may not notice.
#include <sys/select.h>
#include <linux/io_uring.h>
#include <liburing.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/uio.h>

// What the importer leaves out, or imports with a type that needs a conversion at every use.
enum {
    shim_send_flags = MSG_NOSIGNAL | MSG_WAITALL,
    shim_punch_hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    shim_zero_range = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
    shim_lock_exclusive = LOCK_EX | LOCK_NB,
    shim_lock_shared = LOCK_SH | LOCK_NB,
};
static const unsigned shim_setup_deferred =
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
static const unsigned shim_setup_cooperative = IORING_SETUP_COOP_TASKRUN;
static const unsigned shim_setup_queue_size = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
static const unsigned shim_alarm = IORING_TIMEOUT_ABS | IORING_TIMEOUT_BOOTTIME;
static const unsigned shim_alarm_update = IORING_TIMEOUT_ABS;
static const unsigned shim_cancel_any = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;

// Glibc names these only with _GNU_SOURCE.
extern const int shim_o_direct;
extern const int shim_poll_hangup;
extern const int shim_set_open_file_lock;
extern const int shim_seek_data;
extern const int shim_seek_hole;

#pragma clang assume_nonnull begin

/// Marks `sqe` for registered file `index`. After the prep function, which clears the flags.
static inline void shim_fixed_file(struct io_uring_sqe *sqe) { sqe->flags |= IOSQE_FIXED_FILE; }

/// The next request of the queue ends this one if it has not completed by then.
static inline void shim_link(struct io_uring_sqe *sqe) { sqe->flags |= IOSQE_IO_LINK; }

static inline void shim_durable(struct io_uring_sqe *sqe) { sqe->rw_flags = RWF_DSYNC; }

/// Closes every descriptor from `first` on in a child about to start.
int shim_spawn_close_from(void *actions, int first);

/// The oldest completion in the queue; there must be one.
static inline struct io_uring_cqe *shim_completion(struct io_uring *ring) {
    return &ring->cq.cqes[*ring->cq.khead & ring->cq.ring_mask];
}

/// The size of a block device in bytes, or a negative errno.
int64_t shim_device_size(int descriptor);

/// The logical block size of a block device in bytes, or a negative errno.
int shim_logical_block_size(int descriptor);

/// Whether a block device takes no writes: opening it for them works all the same. - Returns: 1 or 0.
int shim_is_read_only(int descriptor);

/// Writes the alignments that direct I/O needs: of memory and of offsets, 0 if there is none, -1 if
/// the file system does not say. - Returns: 0 or a negative errno.
int shim_direct_alignment(int descriptor, int *memory, int *offset);

/// Whether holes can be punched into a file of `size` bytes; none is made. - Returns: 1 or 0.
int shim_can_punch(int descriptor, int64_t size);

/// Prepares a look at an open file; `record`, of `shim_look_size` bytes, gets a struct statx: 32 bits
/// of links at 16, the size in 64 bits at 40.
void shim_prepare_look(struct io_uring_sqe *sqe, int descriptor, void *record);
enum { shim_look_size = 256 };

int shim_pidfd_open(int process);

/// The process at the other end of a unix socket, or 0.
int shim_peer_process(int socket);

/// Waits for nothing: the exit status of a child that has ended, its signal number negated, or
/// INT_MIN if it has not ended.
int shim_reap(int process);

/// The file-system type of an open file, or 0.
int64_t shim_file_system(int descriptor);

unsigned shim_device_major(unsigned long device);
unsigned shim_device_minor(unsigned long device);

/// The text of an errno, `NULL` for an unknown one; for ever, and from any thread.
const char *_Nullable shim_error_text(int number);

/// Blocks these signals in the calling thread. - Returns: where to read them, or a negative errno.
int shim_watch_signals(const int *numbers, int count);
enum { shim_signal_record_size = 128 };

/// A counter that can be read once per post, or a negative errno.
int shim_eventfd(void);
void shim_eventfd_post(int descriptor);

/// accept4 with SOCK_CLOEXEC, for those who do not want to know the address.
int shim_accept(int descriptor);

/// Two connected sockets that keep the borders of messages, closed on exec. - Returns: 0 or a negative
/// errno.
int shim_socket_pair(int *one, int *other);

/// One message, with a descriptor unless that is negative; does not wait. - Returns: 0 or a negative
/// errno.
int shim_send_descriptor(int socket, const void *bytes, unsigned long count, int descriptor);

/// One message and the descriptor that came with it, -1 if none; does not wait. - Returns: how many
/// bytes, 0 at the end, or a negative errno.
long shim_receive_descriptor(int socket, void *bytes, unsigned long count, int *descriptor);

/// Writing back memory depends on the calling thread, and on those that it starts. - Returns: 0 or a
/// negative errno.
int shim_become_io_flusher(void);

/// Two connected sockets of bytes, closed on exec. - Returns: 0 or a negative errno.
int shim_stream_pair(int *one, int *other);

#pragma clang assume_nonnull end
#endif
