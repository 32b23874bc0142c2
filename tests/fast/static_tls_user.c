/*
 * static_tls_user.c - a library that takes a part of the static TLS that dlopen has to give.
 */
static __thread char static_tls[400] __attribute__((tls_model("initial-exec")));

char *static_tls_get(void);
char *static_tls_get(void)
{
    return static_tls;
}
