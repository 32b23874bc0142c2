# What reports are made of: lines are split, counted in hashes of lists, matched, sorted and joined.
use strict;
use warnings;

my $state = 1;
my (%lines_of, %count_of);
for my $number (1 .. 120000) {
    $state = ($state * 1103515245 + 12345) % 2**31;
    my $line = sprintf 'host%d GET /page/%x/%d %d',
        $state % 700, $state % 4096, $number, $state % 600;
    my ($host, $verb, $path, $status) = split ' ', $line;
    push @{$lines_of{$host}}, {path => $path, status => $status};
    $count_of{$1}++ if $path =~ m{^/page/([0-9a-f]+)/};
}
my $report = '';
for my $host (sort { @{$lines_of{$b}} <=> @{$lines_of{$a}} || $a cmp $b } keys %lines_of) {
    my @slow = grep { $_->{status} >= 500 } @{$lines_of{$host}};
    $report .= join(',', $host, map { $_->{path} } sort { $a->{path} cmp $b->{path} } @slow) . "\n";
}
print length $report, ' ', scalar keys %count_of, "\n";
