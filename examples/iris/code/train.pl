# The same classifier as pytrain.py: one line per class with its share, then mean and variance of each attribute.
use strict;
use warnings;

my (%rows, $total);
while (my $line = <>) {
    chomp $line;
    my @cells = split /,/, $line;
    next if @cells < 2;
    my $name = pop @cells;
    push @{ $rows{$name} }, [@cells];
    $total++;
}
for my $name (sort keys %rows) {
    my @members = @{ $rows{$name} };
    printf "%s\t%.6f", $name, @members / $total;
    for my $i (0 .. $#{ $members[0] }) {
        my ($sum, $squares) = (0, 0);
        $sum += $_->[$i] for @members;
        my $mean = $sum / @members;
        $squares += ($_->[$i] - $mean)**2 for @members;
        printf "\t%.6f\t%.6f", $mean, $squares / @members + 1e-9;
    }
    print "\n";
}
