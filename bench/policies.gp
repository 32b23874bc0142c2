# Plots what bench/policies.c prints. Needs `data` and `output_file`; bench/run.sh gives them.
set terminal svg size 900,760 font 'sans-serif,13' background 'white'
set output output_file
set datafile separator tab
set style data histogram
set style histogram clustered gap 1.5
set style fill solid border rgb 'white'
set boxwidth 0.95
set linetype 1 linecolor rgb '#0072b2'
set linetype 2 linecolor rgb '#e69f00'
set linetype 3 linecolor rgb '#cc79a7'
set linetype 4 linecolor rgb '#009e73'
set border 3
set xtics nomirror scale 0
set ytics nomirror
set grid ytics back linetype 1 linewidth 0.5 linecolor rgb '#cccccc'
set logscale y
set multiplot layout 2,1
set key outside top center horizontal
set title 'Nanoseconds a call, by fit= (logarithmic)'
set yrange [10:5000]
plot for [column = 2:5] data index 0 using column:xticlabels(1) title columnheader(column)
set title 'Smallest array in which the workload succeeds, over its most live bytes (logarithmic)'
set yrange [1:*] noextend
set ytics (1, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
plot for [column = 2:5] data index 1 using column:xticlabels(1) title columnheader(column)
unset multiplot
