/*
 * trees.c - What does it cost to build trees, to search them, and to take them down?
 *
 * Documents, syntax trees, dictionaries: each tree has some thousand nodes of one size, each with a
 * text of its own, and lives for as long as it takes to look everything up once. Where nodes and
 * texts lie decides what the search costs.
 */
#include "harness.h"

#include <string.h>

enum { TREES = 500, NODES = 3000, TEXT_BYTES_MIN = 8, TEXT_BYTES_MAX = 48 };

struct node {
    uint64_t key;
    struct node *left;
    struct node *right;
    char *text;
};

static struct node **tree_find(struct node **link, uint64_t key)
{
    while (*link && (*link)->key != key) {
        link = key < (*link)->key ? &(*link)->left : &(*link)->right;
    }
    return link;
}

static void tree_insert(struct worker *worker, struct node **root, uint64_t key)
{
    struct node **link = tree_find(root, key);
    size_t text_bytes = random_between(worker, TEXT_BYTES_MIN, TEXT_BYTES_MAX);
    struct node *node = call_malloc(worker, sizeof *node);
    node->key = key;
    node->left = NULL;
    node->right = NULL;
    node->text = call_malloc(worker, text_bytes);
    memset(node->text, 'x', text_bytes - 1);
    node->text[text_bytes - 1] = '\0';
    *link = node;
}

/* Turns left children up until there is none, and goes on to the right. */
static void tree_free(struct worker *worker, struct node *root)
{
    while (root) {
        struct node *left = root->left;
        if (left) {
            root->left = left->right;
            left->right = root;
            root = left;
        } else {
            struct node *right = root->right;
            call_free(worker, root->text);
            call_free(worker, root);
            root = right;
        }
    }
}

static void work(struct worker *worker)
{
    for (size_t tree = scaled(TREES); tree; tree--) {
        struct node *root = NULL;
        uint64_t first_random = worker->random;
        for (size_t node = 0; node < NODES; node++) {
            tree_insert(worker, &root, random_next(worker));
        }
        /* The same numbers come again: every other one is a key. */
        worker->random = first_random;
        for (size_t node = 0; node < NODES; node++) {
            const struct node *found = *tree_find(&root, random_next(worker));
            if (!found || found->text[0] != 'x') {
                harness_fail("a node is not what it was");
            }
            random_next(worker);
        }
        tree_free(worker, root);
    }
}

int main(int argc, char **argv)
{
    return workload_run(&(struct workload){.work = work}, argc, argv);
}
