#!/usr/bin/env bash
# The data path alone: one core beside Open vSwitch with DPDK (`benches/replay.sh`), then how it grows with flows, rules and masks
# (`cargo bench --bench datapath`), then what a second worker brings (`--bench workers`). Prints each as a Markdown table and draws
# the first two into docs/datapath.png.
#
# usage: benches/datapath.sh [SECONDS] [ROUNDS]
#   SECONDS: of each measurement (default 3). ROUNDS: times that each is measured beside Open vSwitch (default 3).
#   RESULTS: environment variable of benches/replay.sh. What it made there counts here; with 0 ROUNDS that alone does.
#
# Needs what `benches/replay.sh` needs, and gnuplot.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-3}
rounds=${2:-3}
tmp=$(mktemp -d /tmp/sluice-datapath.XXXXXX)
trap 'rm -rf "$tmp"' EXIT

benches/replay.sh "$rounds" "$seconds" l2 rules1000 conntrack | tee "$tmp/beside"
echo
cargo bench --quiet --locked --package sluice-benches --bench datapath >"$tmp/growth"
awk '
NR == 1 { print "| rules | flows in the traffic | Mpps | ns a packet | exact cache | megaflow cache |"; print "|---|---|---|---|---|---|"; next }
{ printf "| %s | %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, $5, $6 }' "$tmp/growth"
echo
cargo bench --quiet --locked --package sluice-benches --bench workers >"$tmp/workers"
awk '
NR == 1 {
    print "| rules | flows in the traffic | 1 worker | 2 workers | ratio | 2 workers, one queue | ratio | handed on |"
    print "|---|---|---|---|---|---|---|---|"
    next
}
{ printf "| %s | %s | %s Mpps | %s Mpps | %s | %s Mpps | %s | %s %% |\n", $1, $2, $3, $4, $5, $6, $7, $8 }' "$tmp/workers"

# Bars: what is measured, ours, theirs. Lines: flows and Mpps, a block for each table.
awk -F'|' '/Mpps/ { gsub(/ /, "", $2); gsub(/ /, "", $3); print "\"" $2 ", " $3 "\"", $4 + 0, $5 + 0 }' "$tmp/beside" >"$tmp/bars"
awk 'NR > 1 && $1 !~ /-/ { if ($1 != last) { if (last) print "\n"; print "\"" $1 "\""; last = $1 } print $2, $3 }' "$tmp/growth" >"$tmp/lines"
gnuplot <<EOF
set terminal pngcairo size 1200,460 font ",10"
set output "docs/datapath.png"
set multiplot layout 1,2
set bmargin 6
set key outside top center horizontal
set ylabel "Mpps, one core"
set yrange [0:*]
set grid ytics lc rgb "#dddddd"
set style data histogram
set style fill solid 0.9 noborder
set boxwidth 0.9
set title "60-byte frames beside OVS-DPDK, by flows in the traffic"
set xtics rotate by 30 right
plot "$tmp/bars" using 2:xtic(1) title "sluice" lc rgb "#2b6cb0", "" using 3 title "ovs-dpdk" lc rgb "#c9a227"
set title "Growth with the number of flows"
set logscale x
set xtics norotate center
set xlabel "flows in the traffic"
plot for [i=0:3] "$tmp/lines" index i using 1:2 with linespoints lw 2 title columnheader(1)
EOF
echo
echo "drawn: docs/datapath.png"
