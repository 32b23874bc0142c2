/*
 * A threaded program to be looked at by a debugger. Three workers sleep at different depths of a
 * recursion while the main thread reaches the breakpoint on all_are_waiting with a list on the
 * heap.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORKERS = 3, NODES = 5 };

struct node {
    int value;
    struct node *next;
};

struct node *head;
static sem_t arrived;
static sem_t released;

static void wait_for_release(void)
{
    sem_post(&arrived);
    sem_wait(&released);
}

static int descend(int depth)
{
    if (depth == 0) {
        wait_for_release();
        return 1;
    }
    return descend(depth - 1) + 1;
}

static void *worker(void *argument)
{
    int depth = *(int *)argument;
    int *result = malloc(sizeof *result);
    if (result != NULL) {
        *result = descend(depth);
    }
    return result;
}

static int all_are_waiting(int count)
{
    return count + 1;
}

int main(void)
{
    pthread_t threads[WORKERS];
    int depths[WORKERS];
    sem_init(&arrived, 0, 0);
    sem_init(&released, 0, 0);
    for (int i = 0; i < NODES; i++) {
        struct node *node = malloc(sizeof *node);
        if (node == NULL) {
            return 1;
        }
        *node = (struct node){.value = i * i, .next = head};
        head = node;
    }
    for (int i = 0; i < WORKERS; i++) {
        depths[i] = i + 1;
        pthread_create(&threads[i], NULL, worker, &depths[i]);
        sem_wait(&arrived);
    }
    int sum = all_are_waiting(WORKERS);
    for (int i = 0; i < WORKERS; i++) {
        sem_post(&released);
    }
    for (int i = 0; i < WORKERS; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        sum += *(int *)result;
        free(result);
    }
    while (head != NULL) {
        struct node *next = head->next;
        sum += head->value;
        free(head);
        head = next;
    }
    printf("sum %d\nfinished\n", sum);
    return 0;
}
