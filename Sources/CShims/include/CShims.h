// The only C. liburing's functions import into Swift as they are; macros, flags and what the
// importer cannot see are named here.
#ifndef REPD_CSHIMS_H
#define REPD_CSHIMS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/io_uring.h>
#include <liburing.h>
#endif
