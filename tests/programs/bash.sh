# shellcheck shell=bash
# A shell script of the everyday kind: pipes, subshells, here-documents, arrays, command substitution.
# shellcheck disable=SC2016,SC2030,SC2031 # Quoted programs are for awk, and subshells change variables on purpose.
set -u

# Word splitting and an associative array that grows and shrinks.
declare -A seen
words=()
for i in {1..800}; do
    word=w$((i * i % 1009))
    words+=("$word")
    seen[$word]=$((${seen[$word]:-0} + 1))
done
for key in "${!seen[@]}"; do
    if ((seen[$key] < 2)); then
        unset "seen[$key]"
    fi
done
printf 'words %d, repeated %d\n' "${#words[@]}" "${#seen[@]}"
printf '%s\n' "${words[@]}" | sort | uniq -c | sort -k1,1nr -k2 | head -n 5

# A string that is rebuilt on every turn.
text=
for i in {1..1000}; do
    text="$text,$i"
    text=${text//,99/,ninety-nine}
done
echo "text of ${#text} characters: ${text:0:40} ... ${text: -24}"

# Nested substitutions, subshells that must not leak, functions that recurse.
depth() {
    if (($1 == 0)); then
        echo 0
    else
        echo $(($(depth $(($1 - 1))) + 1))
    fi
}
echo "depth $(depth 12)"
kept=outer
(
    kept=inner
    words=()
    echo "subshell $kept ${#words[@]}"
)
echo "parent $kept ${#words[@]}"

# Here-documents feed loops, and loops feed pipes.
total=0
while IFS=: read -r name amount; do
    total=$((total + amount))
    printf '%-8s %5d\n' "$name" "$amount"
done <<END
apples:$((3 * 4))
pears:$(seq 1 20 | wc -l)
plums:${#words[@]}
END
echo "total $total"
for i in {1..60}; do
    cat <<END
line $i of $(printf '%03d' "$i")
END
done | tac | sed -n '1~9p'

mapfile -t squares < <(seq 1 2000 | awk '{ print $1 * $1 }')
echo "squares ${#squares[@]} ${squares[-1]} ${squares[*]:10:5}"

# Background jobs finish in any order; their results are read in a fixed one.
for job in 1 2 3 4; do
    (seq "$job" 4 2000 | paste -sd+ | sed 's/.*/echo $((&))/' | bash) >"job.$job" &
done
wait
cat job.1 job.2 job.3 job.4
rm job.1 job.2 job.3 job.4

eval 'list=({a,b,c}{1..30}{x,y}); echo "braces ${#list[@]} ${list[179]}"'
trap 'echo "trapped"; exit 0' USR1
(trap - USR1; exit 3)
echo "subshell status $?"
echo finished
kill -USR1 $$
