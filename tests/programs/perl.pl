# Hashes, regular expressions, sorting, closures and references that are dropped in an odd order.
use strict;
use warnings;
$| = 1; # A crash should show how far the program came.

my $state = 42;
sub next_number { return ($state = ($state * 1103515245 + 12345) & 0x7fffffff) >> 8 }

# Hashes of arrays of strings; perl's hash order is random, so everything is sorted before it is printed.
my %groups;
push @{ $groups{ next_number() % 977 } }, join('-', map { next_number() % 100 } 1 .. 5) for 1 .. 20000;
delete $groups{$_} for grep { $_ % 3 == 0 } keys %groups;
my @largest = sort { @{ $groups{$b} } <=> @{ $groups{$a} } || $a <=> $b } keys %groups;
printf "groups %d, largest %d with %d\n", scalar keys %groups, $largest[0], scalar @{ $groups{ $largest[0] } };
print "$_: $groups{$_}[0] $groups{$_}[-1]\n" for @largest[0 .. 9];

# A text is taken apart and put together again.
my $text = join ' ', map { join '', map { chr(97 + next_number() % 6) } 1 .. 2 + $_ % 8 } 1 .. 20000;
my %words;
$words{$_}++ for split / /, $text;
my $pairs = () = $text =~ /(\w)\1/g;
(my $swapped = $text) =~ s/\b(\w)(\w+)\b/\u$2$1/g;
my $long = 0;
while ($text =~ /\b((?:[a-c]+[d-f]+){2,})\b/g) { $long += length $1 }
printf "text %d, words %d, pairs %d, long %d\n", length $text, scalar keys %words, $pairs, $long;
print substr($swapped, 4000, 70), "\n";

# Strings that grow one piece at a time, side by side, make realloc move them past each other.
my @growing = ('') x 16;
for my $turn (1 .. 12000) { $growing[ $turn % 16 ] .= "$turn," }
print join(' ', map { length } @growing), "\n";

# A tree of closures and references; weeding it frees in an order that is not that of allocation.
sub tree {
    my $depth = shift;
    return { leaf => next_number() % 10 } if $depth == 0;
    my ($left, $right) = (tree($depth - 1), tree($depth - 1));
    return { left => $left, right => $right, sum => sub { total($left) + total($right) } };
}
sub total { my $node = shift; return exists $node->{sum} ? $node->{sum}->() : $node->{leaf} }
my $root = tree(12);
my $before = total($root);
my @queue = ($root);
while (my $node = shift @queue) {
    next unless exists $node->{left};
    push @queue, $node->{right};
    delete @$node{qw(left sum)};
}
print "tree $before\n";

my @records = map { { id => $_, key => sprintf('%06x', next_number() % 0xffffff) } } 1 .. 10000;
my @sorted = map { $_->[1] } sort { $a->[0] cmp $b->[0] } map { [ $_->{key} . $_->{id}, $_ ] } @records;
print join(' ', map { "$_->{id}:$_->{key}" } @sorted[ 0 .. 7 ]), "\n";

my $report = '';
open my $memory, '>', \$report or die "memory file: $!";
printf {$memory} "%-12s|%8.3f|%s\n", $_->{key}, $_->{id} / 7, 'x' x ($_->{id} % 40) for @sorted[ 0 .. 2000 ];
close $memory;
printf "report %d bytes, checksum %d\n", length $report, unpack '%32C*', $report;
print "finished\n";
