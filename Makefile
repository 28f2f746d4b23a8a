# diskfs. One makefile, no recursion.
#
#   make                 build/diskfs
#   make run             build, make two example disks, mount them, say what to try
#   make check           all tests, at most 15 minutes on 2 cores; ends with "N passed, N failed"
#   make check-long      longer campaigns of the same tests
#   make fuzz            VHD files by libFuzzer, for FUZZ_SECONDS (default 1800); needs clang
#   make bench           compare with the rivals, and print ratios
#   make install         into $(DESTDIR)$(PREFIX)
#   make format, make tags, make clean
#
#   V=release|debug|asan|tsan   which build; all but release go to build/$(V)/
#   WERROR=1                    warnings are errors (CI)
#   VERBOSE=1                   show the commands

V      ?= release
PREFIX ?= /usr/local
CC     ?= gcc

VERSION := $(shell sed -n 's/^\#\# \([0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)

ifeq ($(V),release)
B := build
else
B := build/$(V)
endif

ifeq ($(VERBOSE),1)
Q :=
else
Q := @
endif

# ---- flags -------------------------------------------------------------------------------------

PACKAGES := fuse3 liburing libcrypto libcryptsetup sqlite3 libcurl
ifneq ($(MAKECMDGOALS),clean)
# Debian's iniparser has no .pc file: it is linked by name.
PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -liniparser
endif

WARNINGS := -Wall -Wextra -Wshadow -Wvla -Wundef -Wformat=2 -Wpointer-arith -Wcast-qual \
	    -Wcast-align -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes \
	    -Wold-style-definition -Wredundant-decls -Wnested-externs -Wimplicit-fallthrough \
	    -Wdouble-promotion -Wnull-dereference -Wswitch-enum -Wdate-time -Wconversion
ifeq ($(WERROR),1)
WARNINGS += -Werror
endif

CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fPIE
LDFLAGS_release := -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack
CFLAGS_debug := -Og -g3
CFLAGS_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer

LANGUAGE := -std=gnu11 -pthread -I. -D_GNU_SOURCE -DFUSE_USE_VERSION=312 -D_FILE_OFFSET_BITS=64 \
	    -DDISKFS_VERSION='"$(VERSION)"'
ALL_CFLAGS := $(LANGUAGE) $(WARNINGS) $(CFLAGS_$(V)) $(PKG_CFLAGS) $(CFLAGS)
ALL_LDFLAGS := $(CFLAGS_$(V)) $(LDFLAGS_$(V)) -pthread $(LDFLAGS)

# ---- program -----------------------------------------------------------------------------------

CORE    := $(wildcard core/*.c)
ROOMS   := $(CORE) $(wildcard backends/*.c backends/*/*.c) $(wildcard conf/*.c)
SOURCES := $(ROOMS) $(wildcard fs/*.c)
OBJECTS := $(SOURCES:%.c=$(B)/%.o)

.PHONY: all run check check-long fuzz bench install format tags clean deps setup-test tests
all: $(B)/diskfs

$(B)/diskfs: $(OBJECTS)
	@echo "  LD  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

# The flags are a prerequisite, so that objects of other flags are never linked together.
$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	@echo "  CC  $@"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS))' | cmp -s - $@ || \
	 echo '$(subst ','\'',$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS))' > $@
FORCE:

# ---- tests -------------------------------------------------------------------------------------

# tests/unit/NAME.c is a cmocka program of its own; tests/lib/*.c is linked into all of them.
TEST_LIB   := $(patsubst %.c,$(B)/%.o,$(wildcard tests/lib/*.c))
TEST_NAMES := $(patsubst tests/%.c,%,$(wildcard tests/unit/*.c tests/conformance/*.c tests/model/*.c))
TESTS      := $(TEST_NAMES:%=$(B)/tests/%)

$(TESTS): $(B)/tests/%: $(B)/tests/%.o $(TEST_LIB) $(ROOMS:%.c=$(B)/%.o)
	@echo "  LD  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka

# Programs for the scripts in tests/mount: each tests/mount/NAME.c is one.
CLIENTS := $(patsubst tests/mount/%.c,$(B)/tests/%,$(wildcard tests/mount/*.c))

$(CLIENTS): $(B)/tests/%: tests/mount/%.c $(B)/flags
	@mkdir -p $(@D)
	@echo "  CC  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.c %.o,$^) -luring

$(B)/tests/http_server: $(patsubst %.c,$(B)/%.o,$(wildcard tests/lib/http*.c))

tests: $(B)/diskfs $(TESTS) $(CLIENTS)

check:
	@scripts/setup --check-test || scripts/setup --test
	@$(MAKE) --no-print-directory V=$(V) tests
	@BUILD=$(B) tests/run

check-long:
	@scripts/setup --check-test || scripts/setup --test
	@$(MAKE) --no-print-directory V=$(V) tests
	@BUILD=$(B) LONG=1 tests/run

# ---- fuzzing -----------------------------------------------------------------------------------

# All that a fuzzer is linked with is built by clang, in a folder of its own.
FUZZ         := build/fuzz
FUZZ_SECONDS ?= 1800
FUZZ_FLAGS   := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined \
		-fno-omit-frame-pointer
FUZZ_OBJECTS := $(patsubst %.c,$(FUZZ)/%.o,$(wildcard tests/lib/*.c) $(ROOMS) tests/fuzz/vhd.c)

$(FUZZ)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC  $@"
	$(Q)clang $(LANGUAGE) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link $(PKG_CFLAGS) $(CFLAGS) \
		-MMD -MP -c -o $@ $<

$(FUZZ)/vhd: $(FUZZ_OBJECTS)
	@echo "  LD  $@"
	$(Q)clang $(FUZZ_FLAGS) -fsanitize=fuzzer -pthread -o $@ $^ $(PKG_LIBS) -lcmocka

# What it finds stays in $(FUZZ), as does the corpus.
fuzz:
	@scripts/setup --check-fuzz || scripts/setup --fuzz
	@$(MAKE) --no-print-directory $(FUZZ)/vhd
	@mkdir -p $(FUZZ)/corpus
	@VHD_SEEDS=$(FUZZ)/corpus $(FUZZ)/vhd
	$(FUZZ)/vhd -max_total_time=$(FUZZ_SECONDS) -max_len=131072 -timeout=10 -rss_limit_mb=1024 \
		-malloc_limit_mb=64 -artifact_prefix=$(FUZZ)/ -print_final_stats=1 $(FUZZ)/corpus

# ---- use ---------------------------------------------------------------------------------------

run:
	@scripts/setup --check || scripts/setup
	@$(MAKE) --no-print-directory all
	@BUILD=$(B) scripts/demo

bench:
	@scripts/setup --check-bench || scripts/setup --bench
	@$(MAKE) --no-print-directory all
	@BUILD=$(B) scripts/bench
	@BUILD=$(B) scripts/bench --scale

install: all
	install -D -m 755 $(B)/diskfs $(DESTDIR)$(PREFIX)/bin/diskfs
	install -D -m 644 fs/diskfs.8 $(DESTDIR)$(PREFIX)/share/man/man8/diskfs.8
	install -D -m 644 conf/diskfs.conf.5 $(DESTDIR)$(PREFIX)/share/man/man5/diskfs.conf.5
	install -D -m 644 conf/example.conf $(DESTDIR)$(PREFIX)/share/doc/diskfs/example.conf

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

tags:
	ctags -R core backends conf fs tests

clean:
	rm -rf build tags

-include $(OBJECTS:.o=.d) $(TESTS:=.d) $(TEST_LIB:.o=.d) $(FUZZ_OBJECTS:.o=.d)
