/*
 * map_page.h - the template of the page that `hmm map` writes.
 */
#ifndef HMM_MAP_PAGE_H
#define HMM_MAP_PAGE_H

/* The file's bytes, and where they end: at a zero byte, so that the page is a string as well. */
extern const char map_page[];
extern const char map_page_end[];

#endif
