/*
 * Ends with an exit status that a command does not have by itself.
 */
int main(void)
{
    return 7;
}
