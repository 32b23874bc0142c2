# Plots what run.py found: a dot for each allocator on each row, as a ratio to the first one's.
# Needs `data`, `base`, which is the name in column 2, `last_column` and `output_file`; run.py gives
# them.
set terminal svg size 1100,1500 font 'sans-serif,13' background 'white'
set output output_file
set datafile separator tab
set datafile missing '-'
set linetype 1 linecolor rgb '#0072b2' pointtype 7 pointsize 1.1
set linetype 2 linecolor rgb '#e69f00' pointtype 4 pointsize 0.8
set linetype 3 linecolor rgb '#cc79a7' pointtype 6 pointsize 0.8
set linetype 4 linecolor rgb '#009e73' pointtype 8 pointsize 0.8
set linetype 5 linecolor rgb '#56b4e9' pointtype 10 pointsize 0.8
set linetype 6 linecolor rgb '#d55e00' pointtype 12 pointsize 0.8
set linetype 7 linecolor rgb '#555555' pointtype 2 pointsize 0.8
set linetype 8 linecolor rgb '#a6761d' pointtype 1 pointsize 0.8
set border 3
set yrange [] reverse
set offsets 0, 0, 0.7, 0.7
set ytics nomirror scale 0
set xtics nomirror (0.01, '' 0.02, '' 0.05, 0.1, '' 0.2, '' 0.5, 1, '' 2, '' 5, \
10, '' 20, '' 50, 100)
set grid xtics ytics back linetype 1 linewidth 0.5 linecolor rgb '#dddddd'
set logscale x
set arrow 1 from first 1, graph 0 to first 1, graph 1 nohead back linecolor rgb '#888888'
set key outside top center horizontal font ',10'
set multiplot layout 2,2 title 'Ratios to '.base.' (logarithmic)'
titles = "'Wall time' 'Peak resident size' '99.99th percentile of a call' \
'Resident size a second after'"
do for [block = 0:3] {
    set title word(titles, block + 1)
    plot for [column = 3:last_column] data index block using column:0:yticlabels(1) \
        title columnheader(column) with points linetype column - 2
}
unset multiplot
