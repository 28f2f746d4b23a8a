// SPDX-License-Identifier: MIT
/* The list of stacks; stacks.c makes disks of them. */
#include "tests/lib/stacks.h"

#define FILE_FLAGS   (STACK_LASTS | STACK_SPARSE)
#define DEVICE_FLAGS (STACK_LASTS | STACK_OPAQUE)
#define RAM_FLAGS    (STACK_SPARSE | STACK_WHOLE_READS)

#define VHD_FLAGS  (FILE_FLAGS | STACK_512)

/* Of crypt without discards. */
#define FILE_CRYPT_FLAGS (STACK_LASTS | STACK_DENSE)
#define RAM_CRYPT_FLAGS	 (STACK_WHOLE_READS | STACK_DENSE)

/* The path counts from the folder in which tests/run runs them. */
#define CRYPT	   "crypt key_file=tests/lib/crypt.key "
#define CRYPT_PASS CRYPT "discard=pass "

const struct stack stacks[] = {
	{"file", "file", FILE_FLAGS},
	{"file in memory", "file memory", FILE_FLAGS},
	{"file direct", "file direct=yes", FILE_FLAGS},
	{"file with a tail", "file tail=300", FILE_FLAGS},
	{"file read-only", "file", STACK_READ_ONLY | STACK_LASTS},
	{"blockdev", "blockdev", DEVICE_FLAGS},
	{"blockdev, a partition", "blockdev partition memory", DEVICE_FLAGS},
	{"blockdev read-only", "blockdev memory", STACK_READ_ONLY | STACK_LASTS},
	{"blockdev through the page cache", "blockdev direct=no memory", DEVICE_FLAGS},
	{"blockdev, split", "limits max_transfer=12K max_segments=3 (blockdev memory)",
	 DEVICE_FLAGS},
	{"fault on blockdev", "fault (blockdev memory)", DEVICE_FLAGS},
	{"ram", "ram", RAM_FLAGS},
	{"sqlite", "sqlite", FILE_FLAGS | STACK_WHOLE_READS},
	{"sqlite, split", "limits max_transfer=8K max_segments=3 (sqlite memory)",
	 FILE_FLAGS | STACK_WHOLE_READS},
	{"null", "null", STACK_DROPS_WRITES},
	{"ram, aligned", "limits memory_align=4096 fua=no (ram)", RAM_FLAGS},
	{"ram, split", "limits max_transfer=8K max_segments=3 memory_align=512 (ram)", RAM_FLAGS},
	{"file, one segment", "limits max_segments=1 (file memory)", FILE_FLAGS},
	{"file direct, split", "limits max_transfer=20K (file direct=yes)", FILE_FLAGS},

	{"fault on ram", "fault (ram)", RAM_FLAGS},
	{"fault on file", "fault (file memory)", FILE_FLAGS},
	{"fault on ram, split", "limits max_transfer=8K max_segments=3 fua=no (fault (ram))",
	 RAM_FLAGS},
	{"fault on file direct", "fault (file direct=yes)", FILE_FLAGS},

	{"prwrap on ram", "prwrap port (ram)", RAM_FLAGS},
	{"prwrap on file", "prwrap port (file memory)", FILE_FLAGS},
	{"prwrap on file read-only", "prwrap port (file)", STACK_READ_ONLY | STACK_LASTS},
	{"prwrap on null", "prwrap port (null)", STACK_DROPS_WRITES},
	{"fault on prwrap on file direct, split",
	 "limits max_transfer=12K max_segments=2 fua=no (fault (prwrap port (file direct=yes)))",
	 FILE_FLAGS},

	{"crypt on ram", CRYPT "(ram)", RAM_CRYPT_FLAGS},
	{"crypt on file", CRYPT "(file)", FILE_CRYPT_FLAGS},
	{"crypt on file direct", CRYPT "iv=plain64-512 (file direct=yes)", FILE_CRYPT_FLAGS},
	{"crypt with discards on ram", CRYPT_PASS "(ram)", RAM_FLAGS},
	{"crypt with discards on file", CRYPT_PASS "(file memory)", FILE_FLAGS},
	{"crypt with discards on null", CRYPT_PASS "(null)", STACK_DROPS_WRITES},
	{"crypt of 512 bytes on ram, split",
	 "limits max_transfer=20K max_segments=2 fua=no (" CRYPT_PASS "sector_size=512 (ram))",
	 RAM_FLAGS},
	{"crypt on fault on ram", CRYPT "(fault (ram))", RAM_CRYPT_FLAGS},
	{"crypt with discards on fault on file", CRYPT_PASS "(fault (file memory))", FILE_FLAGS},
	{"crypt on fault on prwrap on file direct, split",
	 "limits max_transfer=12K memory_align=512 (" CRYPT
	 "(fault (prwrap port (file direct=yes))))",
	 FILE_CRYPT_FLAGS},

	{"striped on ram", "striped (ram, ram, ram)", RAM_FLAGS},
	{"striped on one", "striped chunk_size=4K (ram)", RAM_FLAGS},
	{"striped on files", "striped chunk_size=64K (file, file, file, file)", FILE_FLAGS},
	{"striped on files direct",
	 "striped chunk_size=12K (file direct=yes, file direct=yes, file direct=yes)", FILE_FLAGS},
	{"striped on null", "striped chunk_size=4K (null, null)", STACK_DROPS_WRITES},

	{"delay on ram", "delay (ram)", RAM_FLAGS},
	{"delay on file, which waits",
	 "delay read_delay=10us write_delay=20us flush_delay=50us jitter=50us (file memory)",
	 FILE_FLAGS},
	{"delay on file read-only", "delay read_delay=10us (file)", STACK_READ_ONLY | STACK_LASTS},

	{"layered, ram alone", "layered (ram)", RAM_FLAGS},
	{"layered, file alone", "layered (file)", FILE_FLAGS},
	{"layered, ram on file", "layered (ram, file memory)", RAM_FLAGS},
	{"layered, ram on noise", "layered (ram, file memory noise)", STACK_WHOLE_READS},
	{"layered, ram on ram", "layered (ram, ram as=below)", RAM_FLAGS},
	{"layered, with a cache", "layered read_cache=c (ram, ram as=c, file memory noise)",
	 STACK_WHOLE_READS},
	{"layered, with a cache that is filled",
	 "layered read_cache=c hydrate=20M (ram, ram as=c, file direct=yes noise)",
	 STACK_WHOLE_READS},
	{"layered, a cache read-only", "layered read_cache=c (ram as=c, file)",
	 STACK_READ_ONLY | STACK_LASTS},
	{"layered, a diff that is a cache", "layered read_cache=c (ram as=c, file memory noise)",
	 STACK_WHOLE_READS},
	{"layered, written through", "layered write_through=c read_cache=c (ram as=c, file)",
	 FILE_FLAGS},
	{"layered, written through to ram", "layered write_through=c (ram as=c, ram)", RAM_FLAGS},
	{"layered, written through twice",
	 "layered write_through=a+b read_cache=b hydrate=10M (ram as=a, ram as=b, file "
	 "direct=yes)",
	 FILE_FLAGS},
	{"layered, written through to a fault",
	 "layered write_through=c read_cache=c (ram as=c, fault (file memory))", FILE_FLAGS},
	{"layered, four deep",
	 "layered read_cache=c (ram, ram as=b, ram as=c, ram as=d, file memory noise)",
	 STACK_WHOLE_READS},
	{"layered on layered on layered",
	 "layered read_cache=c (ram, ram as=c, layered (ram, layered (ram, file noise)))",
	 STACK_WHOLE_READS},

	{"layered, sqlite alone", "layered (sqlite memory)", FILE_FLAGS | STACK_WHOLE_READS},
	{"layered, sqlite on file", "layered (sqlite, file)", FILE_FLAGS | STACK_WHOLE_READS},
	{"layered, sqlite on noise", "layered (sqlite memory, file memory noise)",
	 STACK_LASTS | STACK_WHOLE_READS},
	{"layered, sqlite on ram on noise", "layered (sqlite memory, ram, file noise)",
	 STACK_LASTS | STACK_WHOLE_READS},
	{"layered, ram on a cache in sqlite on file",
	 "layered read_cache=c (ram, sqlite as=c memory, file memory noise)", STACK_WHOLE_READS},
	{"layered, ram on a small cache in sqlite on file",
	 "layered read_cache=c hydrate=10M (ram, sqlite as=c limit=1M memory, file memory noise)",
	 STACK_WHOLE_READS},
	{"layered, a cache in sqlite read-only", "layered read_cache=c (sqlite as=c memory, file)",
	 STACK_READ_ONLY | STACK_LASTS},
	{"layered, sqlite written through",
	 "layered write_through=c read_cache=c (sqlite as=c limit=1M memory, file memory)",
	 FILE_FLAGS},

	{"vhd, fixed", "vhd (file image=fixed-512)", VHD_FLAGS},
	{"vhd, fixed, in memory", "vhd (file image=fixed-512 memory)", VHD_FLAGS},
	{"vhd, dynamic, 512 KiB", "vhd (file image=dynamic-512 memory)", VHD_FLAGS},
	{"vhd, dynamic, 2 MiB", "vhd (file image=dynamic-2048)", VHD_FLAGS},
	{"vhd, dynamic, 16 MiB", "vhd (file image=dynamic-16384 memory)", VHD_FLAGS},
	{"vhd, dynamic, 4 KiB", "vhd (file image=dynamic-4 memory)", STACK_512 | STACK_LASTS},
	{"vhd, dynamic, direct", "vhd (file image=dynamic-2048 direct=yes)", VHD_FLAGS},
	{"vhd, three deep, of nothing", "vhd (file image=differencing-512 memory)", VHD_FLAGS},
	{"vhd, three deep, 512 KiB", "vhd (file image=differencing-512 memory noise)",
	 STACK_512 | STACK_LASTS},
	{"vhd, three deep, 2 MiB", "vhd (file image=differencing-2048 noise)",
	 STACK_512 | STACK_LASTS},
	{"vhd, three deep, 16 MiB", "vhd (file image=differencing-16384 memory noise)",
	 STACK_512 | STACK_LASTS},
	{"fault on vhd", "fault (vhd (file image=dynamic-512 memory))", VHD_FLAGS},
	{"limits on vhd on limits",
	 "limits max_transfer=20K max_segments=2 (vhd (limits max_transfer=8K max_segments=3 "
	 "memory_align=512 (file image=differencing-512 memory noise)))",
	 STACK_512 | STACK_LASTS},
	{"layered on vhd", "layered (ram, vhd (file image=differencing-512 memory noise))",
	 STACK_512 | STACK_WHOLE_READS},

	/* Mixed. */
	{"striped on ram and file", "striped chunk_size=20K (ram, file memory)", STACK_SPARSE},
	{"striped on limits",
	 "striped chunk_size=8K (limits memory_align=4096 fua=no (ram), "
	 "limits max_transfer=4K max_segments=2 (ram))",
	 RAM_FLAGS},
	{"limits on striped",
	 "limits max_transfer=20K max_segments=2 (striped chunk_size=4K (ram, ram))", RAM_FLAGS},
	{"striped on striped",
	 "striped chunk_size=8K (striped chunk_size=16K (ram, ram), "
	 "striped chunk_size=4K (ram, ram, ram))",
	 RAM_FLAGS},
	{"fault on striped", "fault (striped chunk_size=64K (file memory, file memory))",
	 FILE_FLAGS},
	{"striped on faults", "striped chunk_size=8K (fault (ram), fault (ram), fault (ram))",
	 RAM_FLAGS},
	{"striped with one fault", "striped chunk_size=16K (fault (file memory), file memory)",
	 FILE_FLAGS},
	{"delay on striped on files",
	 "delay write_delay=20us (striped chunk_size=32K (file, file, file))", FILE_FLAGS},
	{"striped on delays",
	 "striped chunk_size=4K (delay read_delay=50us jitter=50us (ram), "
	 "delay write_delay=50us jitter=50us (ram))",
	 RAM_FLAGS},
	{"fault on delay on striped",
	 "fault (delay jitter=20us write_delay=1us (striped (ram, ram)))", RAM_FLAGS},
	{"striped on delays on faults",
	 "striped chunk_size=12K (delay read_delay=20us (fault (file memory)), "
	 "delay write_delay=20us (fault (file memory)))",
	 FILE_FLAGS},
	{"crypt on striped on files", CRYPT "(striped chunk_size=32K (file, file, file memory))",
	 FILE_CRYPT_FLAGS},
	{"striped on crypts", "striped chunk_size=8K (" CRYPT "(ram), " CRYPT "(ram))",
	 RAM_CRYPT_FLAGS},
	{"fault on striped on crypts with discards",
	 "fault (striped chunk_size=16K (" CRYPT_PASS "(file memory), " CRYPT_PASS
	 "(delay write_delay=10us (file memory))))",
	 FILE_FLAGS},
	{"crypt on delay on striped on faults",
	 CRYPT_PASS "(delay read_delay=10us (striped chunk_size=4K (fault (ram), fault (ram))))",
	 RAM_FLAGS},
	{"prwrap on striped on prwrap",
	 "prwrap port (striped chunk_size=12K (prwrap (ram), delay (ram)))", RAM_FLAGS},
	{"crypt on layered", CRYPT "(layered (ram, file memory noise))", RAM_CRYPT_FLAGS},
	{"layered on crypt", "layered (ram, " CRYPT "(file memory noise))", STACK_WHOLE_READS},
	{"layered on striped",
	 "layered (ram, striped chunk_size=16K (file memory noise, file noise))",
	 STACK_WHOLE_READS},
	{"fault on layered on delay",
	 "fault (layered read_cache=c (ram, ram as=c, delay read_delay=10us jitter=50us (ram)))",
	 RAM_FLAGS},
	{"limits on layered on limits",
	 "limits max_transfer=20K max_segments=2 (layered (ram, limits max_transfer=8K "
	 "max_segments=3 memory_align=512 (ram)))",
	 RAM_FLAGS},
	{"crypt on layered on striped, written through",
	 CRYPT_PASS "(layered write_through=c read_cache=c (ram as=c, striped chunk_size=8K "
		    "(file memory, delay write_delay=10us (file memory))))",
	 FILE_FLAGS},
	{"crypt on layered on striped",
	 CRYPT "(layered (sqlite memory, striped chunk_size=8K (file memory noise, file noise)))",
	 FILE_CRYPT_FLAGS},
	{"fault on layered, sqlite on file", "fault (layered (sqlite memory, file memory))",
	 FILE_FLAGS | STACK_WHOLE_READS},
	{"five deep",
	 "delay (striped chunk_size=16K (fault (delay write_delay=10us (ram)), "
	 "striped chunk_size=4K (ram, limits fua=no (ram))))",
	 RAM_FLAGS},
	{"six deep, on files",
	 "limits max_transfer=64K max_segments=4 (delay write_delay=5us (striped chunk_size=8K "
	 "(delay read_delay=5us (striped chunk_size=4K (file memory, fault (file memory))), "
	 "delay jitter=10us read_delay=1us (striped chunk_size=128K (file, file)))))",
	 FILE_FLAGS},
	{"six deep, with all wrappers",
	 "prwrap port (delay write_delay=5us (striped chunk_size=8K (" CRYPT_PASS
	 "(fault (file memory)), " CRYPT_PASS "(striped chunk_size=4K (fault (ram), ram)))))",
	 STACK_SPARSE},
	{"six deep, fault at both ends",
	 "fault (delay (striped chunk_size=20K (striped chunk_size=4K (delay (fault (ram)), ram), "
	 "delay write_delay=10us (striped (delay (fault (ram)), limits memory_align=512 (ram))))))",
	 RAM_FLAGS},
};

const size_t stacks_count = ARRAY_SIZE(stacks);
