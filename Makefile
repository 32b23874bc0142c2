# HMM. `make` needs a C compiler and make; `make help` lists the rest.

VERSION := $(shell sed -n 's/^#define HMM_VERSION  *"\(.*\)"/\1/p' include/hmm.h)
SONAME_VERSION := 0
BUILD ?= build
CC ?= cc
PREFIX ?= /usr/local
DESTDIR ?=
# The size of the one array behind libhmm-array.so.
ARRAY_BYTES ?= (1 << 30)

CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wno-psabi -Werror
HMM_CFLAGS = -std=c11 -ffunction-sections -fdata-sections -D_GNU_SOURCE -Iinclude -Isrc -fPIC -fvisibility=hidden \
	-fno-semantic-interposition -ftls-model=initial-exec -fno-tree-slp-vectorize $(WARNINGS) $(CFLAGS)
# Two words that are written as one vector and read as words soon after cost more than they save: no SLP.
HMM_LDFLAGS = -Wl,--version-script=src/libhmm.map -Wl,-Bsymbolic-functions -Wl,--dynamic-list=src/libhmm.dynamic -Wl,-z,nodelete \
	-Wl,-z,initfirst -Wl,-z,now -Wl,-z,relro -Wl,-z,noseparate-code -Wl,--no-undefined \
	-Wl,-z,max-page-size=0x10000 $(LAYOUT) $(LDFLAGS)
# Before glibc 2.34 these were libraries of their own.
HMM_LIBS := -pthread -ldl
# 64 KiB are also what the kernel maps of a file at a time, from where their multiples are (src/libhmm.ld).
# Other linkers do without: the library works the same, with more of it resident.
LAYOUT := $(shell $(CC) $(LDFLAGS) -Wl,--version 2> /dev/null | grep -q '^GNU ld' && echo -Wl,-T,src/libhmm.ld)

# The rooms (docs/design.md), in the order in which they are linked where src/libhmm.ld does not say another.
ROOMS := os_linux os_linux_files os_call lock random arena arena_sets arena_purge arena_hidden arena_open purge huge sizeclass slab large remote thread thread_slabs thread_refill thread_batches \
	medium_allocate medium shard shard_purge process process_exit scavenger alloc alloc_free alloc_resize alloc_whole fork api_hmm options text \
	guard_slots guard guard_medium guard_large fence fence_slabs fence_empty stats stats_print leaks leaks_roots fatal sites sites_print registry region_reserve region_sbrk region_array \
	heap heap_region handle thread_fork seal heap_guard heap_guard_block handle_guarded guard_block guard_quarantine operators guard_audit heap_guard_audit heap_guard_explain arena_audit heap_audit medium_audit thread_audit root
SHARED_DOORS := api_malloc api_new api_new_nothrow api_dlopen api_limit runtime_shared
STATIC_DOORS := api_malloc api_new runtime_static
HEADERS := include/hmm.h $(wildcard src/*.h)

OBJ := $(BUILD)/obj
LIB := $(BUILD)/lib
BIN := $(BUILD)/bin
room_objects = $(patsubst %,$(OBJ)/%.o,$(ROOMS))
shared_objects = $(patsubst %,$(OBJ)/%.o,$(SHARED_DOORS))
static_objects = $(patsubst %,$(OBJ)/%.o,$(STATIC_DOORS))
system_objects = $(room_objects) $(OBJ)/ground_system.o
array_objects = $(room_objects) $(OBJ)/ground_array.o

# KERNEL=other builds everything on another kernel, as far as it can tell: tests/kernel/kernel.c.
ifdef KERNEL
LDFLAGS += $(OBJ)/kernel.o -Wl,--wrap=mmap,--wrap=munmap,--wrap=mprotect,--wrap=madvise,--wrap=mremap \
	-Wl,--wrap=getauxval,--wrap=mincore,--wrap=sbrk,--wrap=hmm_os_call
# Whatever is linked waits for this one.
$(OBJ)/text.o $(OBJ)/debug/text.o $(OBJ)/secure/text.o: | $(OBJ)/kernel.o
endif

.PHONY: all lib tool single demo test tests unit kernel musl deps check-all fuzz bench bench-malloc bench-secure install uninstall format clean help
.DELETE_ON_ERROR:

# Commands are shown short; `make V=1` shows them whole.
say = $(if $(V),,@printf '  %-3s %s\n' $(1) $@ &&)

all: lib tool

lib: $(LIB)/libhmm.so $(LIB)/libhmm.a $(LIB)/libhmm-array.so $(LIB)/libhmm-secure.so

tool: $(BIN)/hmm

$(OBJ) $(LIB) $(BIN) $(OBJ)/tools $(BUILD)/single:
	@mkdir -p $@

$(OBJ)/%.o: src/%.c $(HEADERS) Makefile | $(OBJ)
	$(call say,CC) $(CC) $(HMM_CFLAGS) $(CFLAGS_$*) -c $< -o $@

$(OBJ)/kernel.o: tests/kernel/kernel.c Makefile | $(OBJ)
	$(call say,CC) $(CC) $(HMM_CFLAGS) -Itests -c $< -o $@

CFLAGS_api_malloc := -fvisibility=default
CFLAGS_api_copy := -fvisibility=default -fno-builtin
CFLAGS_api_dlopen := -fvisibility=default
CFLAGS_api_limit := -fvisibility=default
CFLAGS_api_new := -fexceptions
CFLAGS_api_new_nothrow := -fexceptions
CFLAGS_runtime_shared := -fexceptions
CFLAGS_runtime_static := -fexceptions
CFLAGS_ground_array = -DHMM_ARRAY_BYTES='((size_t)$(ARRAY_BYTES))'

$(LIB)/libhmm.so.$(SONAME_VERSION): $(shared_objects) $(system_objects) src/libhmm.map src/libhmm.dynamic src/libhmm.ld | $(LIB)
	$(call say,LD) $(CC) -shared -Wl,-soname,libhmm.so.$(SONAME_VERSION) $(HMM_LDFLAGS) -o $@ \
		$(filter %.o,$^) $(HMM_LIBS)

$(LIB)/libhmm.so: $(LIB)/libhmm.so.$(SONAME_VERSION)
	@ln -sf $(<F) $@

$(LIB)/libhmm-array.so: $(array_objects) $(shared_objects) src/libhmm.map src/libhmm.dynamic src/libhmm.ld | $(LIB)
	$(call say,LD) $(CC) -shared -Wl,-soname,libhmm-array.so $(HMM_LDFLAGS) -o $@ $(filter %.o,$^) $(HMM_LIBS)

# The same rooms, guarded from the start.
secure_objects = $(patsubst %,$(OBJ)/secure/%.o,$(SHARED_DOORS) api_copy $(ROOMS) ground_system)

$(OBJ)/secure:
	@mkdir -p $@

$(OBJ)/secure/%.o: src/%.c $(HEADERS) Makefile | $(OBJ)/secure
	$(call say,CC) $(CC) $(HMM_CFLAGS) $(CFLAGS_$*) -DHMM_SECURE=1 -c $< -o $@

$(LIB)/libhmm-secure.so: $(secure_objects) src/libhmm.map src/libhmm.dynamic src/libhmm.ld | $(LIB)
	$(call say,LD) $(CC) -shared -Wl,-soname,libhmm-secure.so $(HMM_LDFLAGS) -o $@ $(filter %.o,$^) $(HMM_LIBS)

$(LIB)/libhmm.a: $(system_objects) $(static_objects) | $(LIB)
	@rm -f $@
	$(call say,AR) $(AR) rcs $@ $^

# The command: every file of tools/, and the rooms that are constant tables. `hmm top` has a screen
# where ncurses is there to link with (NCURSES= does without).
ifeq ($(origin NCURSES),undefined)
NCURSES := $(shell printf '\043include <ncurses.h>\nint main(void) { return !initscr(); }\n' | \
	$(CC) -x c - -o /dev/null -lncursesw 2> /dev/null && echo -lncursesw)
endif
TOOL := $(OBJ)/tools
# Functions and lines in `hmm leaks` come from elfutils, where it is there (LIBDW= does without).
ifeq ($(origin LIBDW),undefined)
LIBDW := $(shell printf '\043include <elfutils/libdwfl.h>\nint main(void) { return !dwfl_begin(0); }\n' | \
	$(CC) -x c - -o /dev/null -ldw 2> /dev/null && echo -ldw)
endif
tool_left_out = $(addprefix tools/,$(if $(NCURSES),top_none.c,top_ncurses.c) \
	$(if $(LIBDW),symbols_none.c,symbols_libdw.c))
tool_objects = $(patsubst tools/%.c,$(TOOL)/%.o,$(filter-out $(tool_left_out),$(wildcard tools/*.c)))

$(TOOL)/%.o: tools/%.c $(HEADERS) $(wildcard tools/*.h) Makefile | $(TOOL)
	$(call say,CC) $(CC) $(HMM_CFLAGS) -Itools -c $< -o $@

$(TOOL)/map_page.o: tools/map.html

$(BIN)/hmm: $(tool_objects) $(addprefix $(OBJ)/,options.o text.o os_linux.o os_linux_files.o os_call.o sizeclass.o) | $(BIN)
	$(call say,LD) $(CC) $(HMM_CFLAGS) $(LDFLAGS) -o $@ $^ $(NCURSES) $(LIBDW)

# The command knows its own manual page; hmm(3) is in man/.
MANUAL := $(BUILD)/man/hmm.1

$(MANUAL): $(BIN)/hmm
	@mkdir -p $(@D)
	$(call say,MAN) $(BIN)/hmm help --man > $@

# The two-file form, for embedded users.
single: tools/single.sh | $(BUILD)/single
	tools/single.sh $(BUILD)/single

# What a stranger sees first.
demo: all
	BUILD=$(BUILD) CC=$(CC) tools/demo.sh

# Tests. Unit tests link the rooms built with assertions; everything else runs what users get.
TESTS := $(BUILD)/tests
debug_objects = $(patsubst %,$(OBJ)/debug/%.o,$(ROOMS) ground_system)
UNIT_TESTS = $(patsubst tests/%.c,$(TESTS)/%,$(wildcard tests/test_*.c))
MODELS = $(TESTS)/model64 $(TESTS)/model32
SCRIPTS = $(wildcard tests/*.t)

$(OBJ)/debug $(TESTS):
	@mkdir -p $@

$(OBJ)/debug/%.o: src/%.c $(HEADERS) Makefile | $(OBJ)/debug
	$(call say,CC) $(CC) $(HMM_CFLAGS) $(CFLAGS_$*) -DHMM_DEBUG -c $< -o $@

$(TESTS)/test_%: tests/test_%.c $(wildcard tests/*.h) $(debug_objects) | $(TESTS)
	$(call say,LD) $(CC) $(HMM_CFLAGS) $(LDFLAGS) -o $@ $(filter-out $(left_out),$(filter %.c %.o,$^)) \
		-lcmocka $(HMM_LIBS)

# It has this room itself.
$(TESTS)/test_arena: left_out := %/os_call.o

$(TESTS)/model%: tests/model.c $(patsubst %,src/%.c,$(ROOMS) ground_system) $(HEADERS) | $(TESTS)
	$(call say,LD) $(CC) -m$* $(HMM_CFLAGS) -DHMM_DEBUG $(LDFLAGS) -o $@ $(filter %.c,$^) $(HMM_LIBS)

# Eight threads on one heap, in a form that sanitizers can watch.
$(TESTS)/handover: tests/stress/handover.c tests/seed.h $(debug_objects) | $(TESTS)
	$(call say,LD) $(CC) -std=gnu11 -D_GNU_SOURCE -DHEAP_FIT=HMM_FIT_GOOD -Iinclude -Itests -Itests/doors $(CFLAGS) \
		$(LDFLAGS) -o $@ $(filter %.c %.o,$^) $(HMM_LIBS)

# Threads that come and go on the process heap, in the same form.
$(TESTS)/churn: tests/stress/churn.c tests/content.h tests/seed.h $(debug_objects) | $(TESTS)
	$(call say,LD) $(CC) $(HMM_CFLAGS) -Itests -Itests/doors $(LDFLAGS) -o $@ $(filter %.c %.o,$^) \
		$(HMM_LIBS)

# What the command makes of snapshots, without a process to read.
picture_sources = $(addprefix tools/,picture.c map_page.c map_html.c map_svg.c map_terminal.c top.c command.c)

$(TESTS)/test_picture: tests/test_picture.c tests/unit.h $(picture_sources) tools/map.html \
		$(wildcard tools/*.h) $(HEADERS) $(OBJ)/sizeclass.o | $(TESTS)
	$(call say,LD) $(CC) $(HMM_CFLAGS) -Itools $(LDFLAGS) -o $@ $(filter %.c %.o,$^) -lcmocka $(HMM_LIBS)

# System calls are refused at every point, in a form that is audited.
$(TESTS)/refused: tests/faults/refused.c tests/content.h tests/seed.h $(debug_objects) | $(TESTS)
	$(call say,LD) $(CC) $(HMM_CFLAGS) -Itests -Itests/doors $(LDFLAGS) -o $@ $(filter %.c %.o,$^) \
		$(HMM_LIBS)

unit: $(UNIT_TESTS) $(TESTS)/model64 $(TESTS)/handover $(TESTS)/churn
	prove --exec tests/unit.sh $(UNIT_TESTS) $(TESTS)/model64
	$(TESTS)/handover 20000
	$(TESTS)/churn $(CHURN_STEPS)

# The closing line is prove's.
test: deps
	$(MAKE) $(JOBS) tests
	BUILD=$(BUILD) CC=$(CC) prove -j2 --exec tests/unit.sh $(UNIT_TESTS) $(MODELS) $(SCRIPTS)

# All that is built for them; only now what it is built with may have been installed.
tests: all kernel musl $(UNIT_TESTS) $(MODELS) $(TESTS)/refused

# Beside each other, if nobody has said how many, as prove runs the tests.
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j2) --no-print-directory

# For tests/kernel.t. Only what is linked differs.
kernel: lib $(debug_objects)
	$(MAKE) $(JOBS) BUILD=$(BUILD)/kernel OBJ=$(OBJ) KERNEL=other lib $(patsubst $(TESTS)/%,$(BUILD)/kernel/tests/%,$(UNIT_TESTS)) \
		$(BUILD)/kernel/tests/churn

# For tests/musl.t: with another C library, where there is a compiler for it (asked for here, when it may have been installed).
# The kernel's own headers do not come with it.
KERNEL_HEADERS := /usr/include
musl_headers = $(wildcard $(addprefix $(KERNEL_HEADERS)/,linux asm-generic)) \
	$(firstword $(wildcard $(KERNEL_HEADERS)/asm $(KERNEL_HEADERS)/*-linux-gnu/asm))
musl:
	! command -v musl-gcc >/dev/null || { mkdir -p $(BUILD)/musl/include && \
		ln -sfn $(musl_headers) $(BUILD)/musl/include/ && \
		$(MAKE) $(JOBS) BUILD=$(BUILD)/musl CC='musl-gcc -idirafter $(BUILD)/musl/include' \
			lib $(BUILD)/musl/tests/churn; }

deps:
	tools/deps.sh tests/packages

# What takes longer: sanitizers, both compilers, a long model, fuzzers.
SANITIZED = ASAN_OPTIONS=detect_leaks=0 $(MAKE) unit
FUZZ_SECONDS ?= 60
MODEL_STEPS ?= 1000000
CHURN_STEPS ?= 50000

check-all: test $(TESTS)/churn
	$(MAKE) BUILD=$(BUILD)/clang CC=clang all unit
	$(SANITIZED) BUILD=$(BUILD)/asan CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover'
	$(SANITIZED) BUILD=$(BUILD)/tsan CFLAGS='-O1 -g -fsanitize=thread'
	$(MAKE) BUILD=$(BUILD)/unchecked CFLAGS='-O2 -g -DHMM_FREE_CHECKS=0' lib
	BUILD=$(BUILD)/unchecked MALLOC_INSTRUCTIONS=14 FREE_INSTRUCTIONS=17 prove tests/fast.t
	$(TESTS)/model64 $(MODEL_STEPS)
	$(TESTS)/model32 $(MODEL_STEPS)
	for round in 1 2 3 4 5; do prove tests/stress.t || exit 1; done
	for seed in 1 2 3 4 5 6 7 8; do $(TESTS)/churn $(MODEL_STEPS) $$seed 20 || exit 1; done
	BUILD=$(BUILD) CC=$(CC) POINT_STEP=1 prove tests/faults.t
	BUILD=$(BUILD) UNITS='$(notdir $(UNIT_TESTS))' prove tests/kernel.t
	BUILD=$(BUILD) tests/foreign/run.sh
	tests/spin/run.sh
	$(MAKE) fuzz

# One after the other: operations on a heap in an array, calls on the process heap, damaged heaps.
FUZZERS := fuzz_heap fuzz_api fuzz_damage
fuzz_rooms = $(patsubst %,src/%.c,$(ROOMS) ground_system)

fuzz: $(addprefix $(TESTS)/,$(FUZZERS))
	for fuzzer in $(FUZZERS); do \
		mkdir -p $(TESTS)/corpus/$$fuzzer && \
		$(TESTS)/$$fuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=2048 -rss_limit_mb=0 -timeout=20 \
			-verbosity=0 -print_final_stats=1 -artifact_prefix=$(TESTS)/ $(TESTS)/corpus/$$fuzzer \
			tests/fuzz/corpus/$$fuzzer || exit 1; \
	done

$(TESTS)/fuzz_%: tests/fuzz/fuzz_%.c tests/content.h tests/seed.h $(fuzz_rooms) $(HEADERS) | $(TESTS)
	$(call say,LD) clang $(HMM_CFLAGS) -Itests -DHMM_DEBUG -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -fsanitize-address-use-after-return=never $(CFLAGS_fuzz_$*) \
		-o $@ $< $(fuzz_rooms) $(HMM_LIBS)

CFLAGS_fuzz_api := -Wl,--wrap=hmm_os_call

# The words of a crime are taken by the fuzzer itself, and checksums leave nothing to chance.
$(TESTS)/fuzz_damage: fuzz_rooms := $(filter-out src/fatal.c,$(fuzz_rooms))
CFLAGS_fuzz_damage := -DBLOCK_CHECKSUM_SHIFT=24

# Benches (docs/bench-*.md). ARRAY_PEERS="NAME=PATH.so ..." puts others beside HMM in the array bench:
# see bench/array.c.
BENCH := $(BUILD)/bench
BENCH_CFLAGS = -std=c11 -D_GNU_SOURCE -Iinclude -Ibench $(WARNINGS) $(CFLAGS)
bench_headers := include/hmm.h bench/workload.h bench/measure.h

$(BENCH):
	@mkdir -p $@

$(BENCH)/policies $(BENCH)/array: $(BENCH)/%: bench/%.c bench/workload.c bench/measure.c \
		$(bench_headers) | $(BENCH)
	$(call say,LD) $(CC) $(BENCH_CFLAGS) $(LDFLAGS) -o $@ $(filter %.c %.a,$^) -ldl

$(BENCH)/policies: $(LIB)/libhmm.a

$(BENCH)/peer_hmm_unchecked.so: BENCH_CFLAGS += -DPEER_INTEGRITY=HMM_INTEGRITY_NONE
$(BENCH)/peer_hmm.so $(BENCH)/peer_hmm_unchecked.so: bench/peer_hmm.c $(LIB)/libhmm.a | $(BENCH)
	$(call say,LD) $(CC) $(BENCH_CFLAGS) $(LDFLAGS) -shared -fPIC -Wl,--exclude-libs,ALL -o $@ $^

bench: $(addprefix $(BENCH)/,policies array peer_hmm.so peer_hmm_unchecked.so)
	BUILD=$(BUILD) CC=$(CC) bench/run.sh all $(ARRAY_PEERS)
	$(MAKE) bench-malloc

# The malloc bench (docs/bench-malloc.md). REPEATS=N, ONLY="WORKLOAD or PROGRAM ...",
# ALLOCATORS="NAME ...", PEERS="NAME=PATH.so ...": see bench/malloc/run.py.
MALLOC_BENCH := $(BENCH)/malloc
MALLOC_WORKLOADS := $(filter-out harness launch,$(patsubst bench/malloc/%.c,%,$(wildcard bench/malloc/*.c)))
MALLOC_BENCH_CFLAGS = $(BENCH_CFLAGS) $(addprefix -fno-builtin-,malloc calloc realloc free) -pthread
malloc_harness := bench/malloc/harness.c bench/measure.c bench/malloc/harness.h bench/measure.h

$(MALLOC_BENCH):
	@mkdir -p $@

malloc_timed = $(addprefix $(MALLOC_BENCH)/,$(MALLOC_WORKLOADS))
malloc_by_call = $(addsuffix .calls,$(malloc_timed))
malloc_link = $(call say,LD) $(CC) $(MALLOC_BENCH_CFLAGS) $(LDFLAGS) -o $@ $(filter %.c,$^)

$(malloc_timed): $(MALLOC_BENCH)/%: bench/malloc/%.c $(malloc_harness) | $(MALLOC_BENCH)
	$(malloc_link)

$(malloc_by_call): $(MALLOC_BENCH)/%.calls: bench/malloc/%.c $(malloc_harness) | $(MALLOC_BENCH)
	$(malloc_link) -DMEASURE_CALLS

$(MALLOC_BENCH)/launch: bench/malloc/launch.c bench/measure.h | $(MALLOC_BENCH)
	$(malloc_link)

# The secure one is beside allocators that are given, and scudo: docs/bench-secure.md.
bench-secure: bench_flags := --secure
bench-malloc bench-secure: $(LIB)/libhmm.so $(LIB)/libhmm-secure.so $(malloc_timed) $(malloc_by_call) $(MALLOC_BENCH)/launch
	BUILD=$(BUILD) CC=$(CC) bench/malloc/run.py $(bench_flags) --repeats '$(or $(REPEATS),5)' --only '$(ONLY)' \
		--allocators '$(ALLOCATORS)' $(PEERS)

# Where it goes. Paths may have spaces.
INSTALLED = $(DESTDIR)$(PREFIX)
INSTALLED_FOLDERS := lib/pkgconfig include bin share/man/man1 share/man/man3 share/bash-completion/completions

install: all $(MANUAL)
	install -d $(foreach folder,$(INSTALLED_FOLDERS),'$(INSTALLED)/$(folder)')
	install -m 755 $(LIB)/libhmm.so.$(SONAME_VERSION) $(LIB)/libhmm-array.so $(LIB)/libhmm-secure.so \
		'$(INSTALLED)/lib'
	ln -sf libhmm.so.$(SONAME_VERSION) '$(INSTALLED)/lib/libhmm.so'
	install -m 644 $(LIB)/libhmm.a '$(INSTALLED)/lib'
	install -m 644 include/hmm.h '$(INSTALLED)/include'
	install -m 755 $(BIN)/hmm '$(INSTALLED)/bin'
	install -m 644 $(MANUAL) '$(INSTALLED)/share/man/man1'
	install -m 644 man/hmm.3 '$(INSTALLED)/share/man/man3'
	install -m 644 packaging/hmm.bash '$(INSTALLED)/share/bash-completion/completions/hmm'
	sed 's,@PREFIX@,$(PREFIX),; s,@VERSION@,$(VERSION),' packaging/hmm.pc.in \
		> '$(INSTALLED)/lib/pkgconfig/hmm.pc'

# The files of install and nothing else: others may have put something into its folders.
INSTALLED_FILES := $(addprefix lib/,libhmm.so.$(SONAME_VERSION) libhmm.so libhmm-array.so libhmm-secure.so libhmm.a \
		pkgconfig/hmm.pc) include/hmm.h bin/hmm share/man/man1/hmm.1 share/man/man3/hmm.3 \
	share/bash-completion/completions/hmm

uninstall:
	rm -f $(foreach file,$(INSTALLED_FILES),'$(INSTALLED)/$(file)')

format:
	clang-format -i include/*.h src/*.[ch] tools/*.[ch] $(shell find tests bench -name '*.[ch]' -o -name '*.cc')

clean:
	rm -rf $(BUILD)

help:
	@echo 'make            the libraries and the hmm command, in $(BUILD)'
	@echo 'make demo       runs real programs on HMM and shows what the heap did'
	@echo 'make test       every test; installs what they need where it can'
	@echo 'make check-all  and sanitizers, clang, a long model, fuzzers'
	@echo 'make bench      all benches: the four policies, heaps in an array, malloc beside other allocators'
	@echo 'make bench-malloc ONLY="one_size python" REPEATS=3   one question of the last'
	@echo 'make bench-secure   malloc made secure, beside others: PEERS="NAME=PATH.so ..."'
	@echo 'make single     the two-file form for embedded users, in $(BUILD)/single'
	@echo 'make install    PREFIX=$(PREFIX)'
	@echo 'make uninstall  what install has put there'
	@echo 'make fuzz       the fuzzers alone, with clang: FUZZ_SECONDS=$(FUZZ_SECONDS) each'
	@echo 'make format     clang-format over all C'
	@echo 'make clean      removes $(BUILD)'
	@echo 'V=1 shows commands whole. BUILD, CC, CFLAGS, ARRAY_BYTES and DESTDIR can be given.'
