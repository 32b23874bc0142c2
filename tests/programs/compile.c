/*
 * Food for the compiler: four functions with loops, a switch and floating point, which a macro
 * repeats for ten types, so that the optimiser has real work. The program itself prints one number,
 * which shows that the object was compiled correctly.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INSTANCES(X)                                                                               \
    X(a, int, 1)                                                                                   \
    X(b, long, 2)                                                                                  \
    X(c, short, 3)                                                                                 \
    X(d, double, 4)                                                                                \
    X(e, float, 5)                                                                                 \
    X(f, unsigned, 6)                                                                              \
    X(g, unsigned long, 7) X(h, signed char, 8) X(i, long double, 9) X(j, unsigned short, 10)

#define FAMILY(name, type, salt)                                                                   \
    struct pair_##name {                                                                           \
        type key;                                                                                  \
        struct pair_##name *next;                                                                  \
        char label[8 + (salt)];                                                                    \
    };                                                                                             \
    static void sort_##name(type *values, int count)                                               \
    {                                                                                              \
        for (int gap = count / 2; gap > 0; gap /= 2) {                                             \
            for (int i = gap; i < count; i++) {                                                    \
                type value = values[i];                                                            \
                int j = i;                                                                         \
                for (; j >= gap && values[j - gap] > value; j -= gap) {                            \
                    values[j] = values[j - gap];                                                   \
                }                                                                                  \
                values[j] = value;                                                                 \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static double product_##name(const type(*left)[6], const type(*right)[6])                      \
    {                                                                                              \
        double sum = 0;                                                                            \
        for (int i = 0; i < 6; i++) {                                                              \
            for (int j = 0; j < 6; j++) {                                                          \
                for (int k = 0; k < 6; k++) {                                                      \
                    sum += (double)left[i][k] * (double)right[k][j];                               \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        return sum;                                                                                \
    }                                                                                              \
    static long step_##name(long state, int code)                                                  \
    {                                                                                              \
        switch ((code + (salt)) % 11) {                                                            \
        case 0:                                                                                    \
            return state * 3 + (salt);                                                             \
        case 1:                                                                                    \
            return state ^ (state >> 7);                                                           \
        case 2:                                                                                    \
            return state - code;                                                                   \
        case 3:                                                                                    \
            return state / ((salt) + 1);                                                           \
        case 4:                                                                                    \
            return labs(state) % 100003;                                                           \
        case 5:                                                                                    \
            return (long)sqrt((double)labs(state));                                                \
        case 6:                                                                                    \
            return state + (long)strlen(#name #type);                                              \
        case 7:                                                                                    \
            return (state << 3) % 1000003;                                                         \
        case 8:                                                                                    \
            return ~state;                                                                         \
        default:                                                                                   \
            return state + 1;                                                                      \
        }                                                                                          \
    }                                                                                              \
    long run_##name(long seed)                                                                     \
    {                                                                                              \
        type values[72];                                                                           \
        struct pair_##name *list = NULL;                                                           \
        for (int i = 0; i < 72; i++) {                                                             \
            values[i] = (type)((seed * (i + 7)) % 101);                                            \
            struct pair_##name *pair = malloc(sizeof *pair);                                       \
            if (pair == NULL) {                                                                    \
                abort();                                                                           \
            }                                                                                      \
            pair->key = values[i];                                                                 \
            pair->next = list;                                                                     \
            snprintf(pair->label, sizeof pair->label, "%d", i);                                    \
            list = pair;                                                                           \
        }                                                                                          \
        sort_##name(values, 72);                                                                   \
        long state =                                                                               \
            (long)product_##name((const type(*)[6])values, (const type(*)[6])(values + 36));       \
        for (int i = 0; list != NULL; i++) {                                                       \
            struct pair_##name *next = list->next;                                                 \
            state = step_##name(state, i + list->label[0]);                                        \
            free(list);                                                                            \
            list = next;                                                                           \
        }                                                                                          \
        return labs(state) % 1000003;                                                              \
    }

INSTANCES(FAMILY)

#define RUN(name, type, salt) total = (total * 31 + run_##name(total + (salt))) % 1000003;

int main(void)
{
    long total = 1;
    for (int i = 0; i < 100; i++) {
        INSTANCES(RUN)
    }
    printf("checksum %ld\nfinished\n", total);
    return 0;
}
