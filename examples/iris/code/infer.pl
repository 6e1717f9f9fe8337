# The same classifier as pyinfer.py: perl infer.pl MODEL ATTRIBUTES
use strict;
use warnings;

my ($model, $attributes) = @ARGV;
my @classes;
open my $known, '<', $model or die "$model: $!\n";
while (my $line = <$known>) {
    chomp $line;
    push @classes, [split /\t/, $line];
}
open my $rows, '<', $attributes or die "$attributes: $!\n";
while (my $line = <$rows>) {
    chomp $line;
    next if $line eq '';
    my @row = split /,/, $line;
    my ($best, $top);
    for my $class (@classes) {
        my ($name, $share, @cells) = @$class;
        my $score = log $share;
        for my $i (0 .. $#row) {
            my ($mean, $variance) = @cells[2 * $i, 2 * $i + 1];
            $score -= (log($variance) + ($row[$i] - $mean)**2 / $variance) / 2;
        }
        ($best, $top) = ($name, $score) if !defined $top || $score > $top;
    }
    print "$best\n";
}
