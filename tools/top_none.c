/*
 * top_none.c - in place of a screen where the command was built without ncurses. See top.h.
 */
#include "top.h"

bool top_screen_can_open(void)
{
    command_error(
        "was built without ncurses; install libncurses-dev (ncurses-devel), run make again");
    return false;
}

int top_screen_run(struct reader *reader, struct top *top, int interval_ms)
{
    (void)reader;
    (void)top;
    (void)interval_ms;
    return EXIT_TROUBLE;
}
