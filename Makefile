# HMM. `make` needs a C compiler and make; `make help` lists the rest.

VERSION := 0.1
SONAME_VERSION := 0
BUILD ?= build
CC ?= cc
PREFIX ?= /usr/local
DESTDIR ?=
# The size of the one array behind libhmm-array.so.
ARRAY_BYTES ?= (1 << 30)

CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror
HMM_CFLAGS = -std=c11 -D_GNU_SOURCE -Iinclude -Isrc -fPIC -fvisibility=hidden \
	-fno-semantic-interposition -ftls-model=initial-exec $(WARNINGS) $(CFLAGS)
HMM_LDFLAGS = -Wl,--version-script=src/libhmm.map -Wl,-Bsymbolic-functions -Wl,-z,nodelete \
	-Wl,-z,now -Wl,-z,relro -Wl,--no-undefined $(LDFLAGS)

# The rooms, bottom to top (docs/design.md). CORE builds freestanding too.
CORE := region_array heap heap_audit handle
ROOMS := text fatal lock random os_linux region_reserve region_sbrk $(CORE) \
	options alloc registry fork api_hmm
DOORS := api_malloc api_new
HEADERS := include/hmm.h $(wildcard src/*.h)

OBJ := $(BUILD)/obj
LIB := $(BUILD)/lib
BIN := $(BUILD)/bin
room_objects = $(patsubst %,$(OBJ)/%.o,$(ROOMS))
door_objects = $(patsubst %,$(OBJ)/%.o,$(DOORS))
system_objects = $(room_objects) $(OBJ)/ground_system.o
array_objects = $(room_objects) $(OBJ)/ground_array.o

.PHONY: all lib tool single demo test deps check-all bench install clean format help
.DELETE_ON_ERROR:

all: lib tool

lib: $(LIB)/libhmm.so $(LIB)/libhmm.a $(LIB)/libhmm-array.so

tool: $(BIN)/hmm

$(OBJ) $(LIB) $(BIN) $(BUILD)/single:
	mkdir -p $@

$(OBJ)/%.o: src/%.c $(HEADERS) Makefile | $(OBJ)
	$(CC) $(HMM_CFLAGS) $(CFLAGS_$*) -c $< -o $@

CFLAGS_api_malloc := -fvisibility=default
CFLAGS_api_new := -fexceptions
CFLAGS_ground_array = -DHMM_ARRAY_BYTES='((size_t)$(ARRAY_BYTES))'

$(LIB)/libhmm.so.$(SONAME_VERSION): $(system_objects) $(door_objects) src/libhmm.map | $(LIB)
	$(CC) -shared -Wl,-soname,libhmm.so.$(SONAME_VERSION) $(HMM_LDFLAGS) -o $@ \
		$(filter %.o,$^)

$(LIB)/libhmm.so: $(LIB)/libhmm.so.$(SONAME_VERSION)
	ln -sf $(<F) $@

$(LIB)/libhmm-array.so: $(array_objects) $(door_objects) src/libhmm.map | $(LIB)
	$(CC) -shared -Wl,-soname,libhmm-array.so $(HMM_LDFLAGS) -o $@ $(filter %.o,$^)

$(LIB)/libhmm.a: $(system_objects) $(door_objects) | $(LIB)
	rm -f $@
	$(AR) rcs $@ $^

$(BIN)/hmm: tools/hmm.c $(OBJ)/options.o $(OBJ)/text.o $(OBJ)/os_linux.o | $(BIN)
	$(CC) $(HMM_CFLAGS) $(LDFLAGS) -o $@ $^

# Tests. Unit tests link the rooms built with assertions; everything else runs what users get.
TESTS := $(BUILD)/tests
debug_objects = $(patsubst %,$(OBJ)/debug/%.o,$(ROOMS) ground_system)
UNIT_TESTS = $(patsubst tests/%.c,$(TESTS)/%,$(wildcard tests/test_*.c))
SCRIPTS = $(wildcard tests/*.t)

$(OBJ)/debug $(TESTS):
	mkdir -p $@

$(OBJ)/debug/%.o: src/%.c $(HEADERS) Makefile | $(OBJ)/debug
	$(CC) $(HMM_CFLAGS) $(CFLAGS_$*) -DHMM_DEBUG -c $< -o $@

$(TESTS)/test_%: tests/test_%.c $(debug_objects) | $(TESTS)
	$(CC) $(HMM_CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka -pthread

# The closing line is prove's.
test: deps all $(UNIT_TESTS)
	BUILD=$(BUILD) CC=$(CC) CMOCKA_MESSAGE_OUTPUT=TAP prove -j2 $(UNIT_TESTS) $(SCRIPTS)
