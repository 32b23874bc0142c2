# Plots what bench/array.c prints. Needs `data` and `output_file`; bench/run.sh gives them.
set terminal svg size 900,1100 font 'sans-serif,13' background 'white'
set output output_file
set datafile separator tab
set style data histogram
set style histogram clustered gap 1.5
set style fill solid border rgb 'white'
set boxwidth 0.95
set border 3
set xtics nomirror scale 0
set ytics nomirror
set grid ytics back linetype 1 linewidth 0.5 linecolor rgb '#cccccc'
stats data index 1 every ::1 nooutput
last_column = int(STATS_columns)
set key outside top center horizontal
set logscale y
set multiplot layout 3,1
set linetype 1 linecolor rgb '#9ecae1'
set linetype 2 linecolor rgb '#3182bd'
set linetype 3 linecolor rgb '#08306b'
set linetype 4 linecolor rgb '#fdd0a2'
set linetype 5 linecolor rgb '#f16913'
set linetype 6 linecolor rgb '#7f2704'
set title 'Time of a call (logarithmic)'
set yrange [10:*]
plot for [column = 2:7] data index 0 using column:xticlabels(1) title columnheader(column)
set linetype 1 linecolor rgb '#0072b2'
set linetype 2 linecolor rgb '#56b4e9'
set linetype 3 linecolor rgb '#e69f00'
set linetype 4 linecolor rgb '#cc79a7'
set linetype 5 linecolor rgb '#009e73'
set linetype 6 linecolor rgb '#d55e00'
set title 'Bytes a block beyond what was asked for, by block size (logarithmic)'
set yrange [4:*]
plot for [column = 2:last_column] data index 1 using column:xticlabels(1) title columnheader(column)
set title 'Smallest array in which the workload succeeds, over its most live bytes'
unset logscale y
set yrange [1:*]
plot for [column = 2:last_column] data index 2 using column:xticlabels(1) title columnheader(column)
unset multiplot
