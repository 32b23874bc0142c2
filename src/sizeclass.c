/*
 * sizeclass.c - the tables of classes, written out by the compiler. See sizeclass.h.
 */
#include "sizeclass.h"

#define TIMES_1(size_class)  size_class
#define TIMES_2(size_class)  TIMES_1(size_class), TIMES_1(size_class)
#define TIMES_4(size_class)  TIMES_2(size_class), TIMES_2(size_class)
#define TIMES_8(size_class)  TIMES_4(size_class), TIMES_4(size_class)
#define TIMES_16(size_class) TIMES_8(size_class), TIMES_8(size_class)
#define TIMES_32(size_class) TIMES_16(size_class), TIMES_16(size_class)

/* A slot of the first class has no room for anything but its link and its seal. */
enum { FIRST_CLASS = HMM_SECURE ? 1 : 0 };

/* clang-format off */
const uint16_t hmm_class_bytes[CLASS_COUNT] = {
    16, 32, 48, 64, 80, 96, 112, 128, 144, 160,
    176, 192, 208, 224, 240, 256, 288, 320, 352, 384,
    416, 448, 480, 512, 528, 576, 640, 704, 768, 832,
    896, 960, 1024, 1040, 1152, 1280, 1408, 1536, 1664, 1792,
    1920, 2048, 2112, 2256, 2416, 2608, 2848, 3120, 3440, 3840,
    4096, 4368, 4672, 5040, 5456, 5952, 6544, 7280, 8192,
};

/* The class of each unit of request, with the class's size. */
const uint8_t hmm_class_table[CLASS_TABLE_COUNT] = {
    FIRST_CLASS, /* a request of no bytes */
    FIRST_CLASS, 1, 2, 3, 4, 5, 6, 7, /* to 128 */
    8, 9, 10, 11, 12, 13, 14, 15, /* to 256 */
    TIMES_2(16), /* 288 */
    TIMES_2(17), /* 320 */
    TIMES_2(18), /* 352 */
    TIMES_2(19), /* 384 */
    TIMES_2(20), /* 416 */
    TIMES_2(21), /* 448 */
    TIMES_2(22), /* 480 */
    TIMES_2(23), /* 512 */
    24, /* to 528 */
    TIMES_2(25), TIMES_1(25), /* 576 */
    TIMES_4(26), /* 640 */
    TIMES_4(27), /* 704 */
    TIMES_4(28), /* 768 */
    TIMES_4(29), /* 832 */
    TIMES_4(30), /* 896 */
    TIMES_4(31), /* 960 */
    TIMES_4(32), /* 1024 */
    33, /* to 1040 */
    TIMES_4(34), TIMES_2(34), TIMES_1(34), /* 1152 */
    TIMES_8(35), /* 1280 */
    TIMES_8(36), /* 1408 */
    TIMES_8(37), /* 1536 */
    TIMES_8(38), /* 1664 */
    TIMES_8(39), /* 1792 */
    TIMES_8(40), /* 1920 */
    TIMES_8(41), /* 2048 */
    TIMES_4(42), /* 2112 */
    TIMES_8(43), TIMES_1(43), /* 2256 */
    TIMES_8(44), TIMES_2(44), /* 2416 */
    TIMES_8(45), TIMES_4(45), /* 2608 */
    TIMES_8(46), TIMES_4(46), TIMES_2(46), TIMES_1(46), /* 2848 */
    TIMES_16(47), TIMES_1(47), /* 3120 */
    TIMES_16(48), TIMES_4(48), /* 3440 */
    TIMES_16(49), TIMES_8(49), TIMES_1(49), /* 3840 */
    TIMES_16(50), /* 4096 */
    TIMES_16(51), TIMES_1(51), /* 4368 */
    TIMES_16(52), TIMES_2(52), TIMES_1(52), /* 4672 */
    TIMES_16(53), TIMES_4(53), TIMES_2(53), TIMES_1(53), /* 5040 */
    TIMES_16(54), TIMES_8(54), TIMES_2(54), /* 5456 */
    TIMES_16(55), TIMES_8(55), TIMES_4(55), TIMES_2(55), TIMES_1(55), /* 5952 */
    TIMES_32(56), TIMES_4(56), TIMES_1(56), /* 6544 */
    TIMES_32(57), TIMES_8(57), TIMES_4(57), TIMES_2(57), /* 7280 */
    TIMES_32(58), TIMES_16(58), TIMES_8(58), TIMES_1(58), /* 8192 */
};
/* clang-format on */
