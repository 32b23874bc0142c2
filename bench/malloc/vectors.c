/*
 * vectors.c - What do small temporaries cost, of which few are alive at a time?
 *
 * Numerical code with a vector type makes one for each intermediate result: here two operands of 3
 * to 32 numbers and their sum, taken, filled, read, and given back last first. The arithmetic is
 * part of the figure, as it would be of the program's.
 */
#include "harness.h"

enum { ROUNDS = 6000000, LENGTH_MIN = 3, LENGTH_MAX = 32 };

static double *vector_make(struct worker *worker, size_t length, double first)
{
    double *vector = call_malloc(worker, length * sizeof *vector);
    for (size_t index = 0; index < length; index++) {
        vector[index] = first + (double)index;
    }
    return vector;
}

static double *vector_sum(struct worker *worker, const double *left, const double *right,
                          size_t length)
{
    double *sum = call_malloc(worker, length * sizeof *sum);
    for (size_t index = 0; index < length; index++) {
        sum[index] = left[index] + right[index];
    }
    return sum;
}

static void work(struct worker *worker)
{
    for (size_t round = scaled(ROUNDS); round; round--) {
        size_t length = random_between(worker, LENGTH_MIN, LENGTH_MAX);
        double *left = vector_make(worker, length, 1);
        double *right = vector_make(worker, length, 2);
        double *sum = vector_sum(worker, left, right, length);
        if (sum[length - 1] != left[length - 1] + right[length - 1]) {
            harness_fail("two vectors overlap");
        }
        call_free(worker, sum);
        call_free(worker, right);
        call_free(worker, left);
    }
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.work = work}, argc, argv);
}
