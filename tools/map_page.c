/*
 * map_page.c - the page of map.html, as bytes of the command. The assembler reads the file, so
 * nothing has to be made from it first. See map_page.h.
 */
#include "map_page.h"

/* The path is from where make runs. */
__asm__(".pushsection .rodata\n"
        ".globl map_page\n"
        "map_page:\n"
        ".incbin \"tools/map.html\"\n"
        ".globl map_page_end\n"
        "map_page_end:\n"
        ".byte 0\n"
        ".popsection\n");
