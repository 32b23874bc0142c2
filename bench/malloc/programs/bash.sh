# What scripts of builds and boots do: variables, arrays, functions, strings cut and put together.
declare -A count_of
lines=()
state=1
for ((number = 0; number < 20000; number++)); do
    state=$(((state * 1103515245 + 12345) % 2147483648))
    line="user$((state % 300)):/home/$state:$number"
    lines+=("$line")
    user=${line%%:*}
    count_of[$user]=$((${count_of[$user]:-0} + 1))
done
text=
for line in "${lines[@]}"; do
    IFS=: read -r user home number <<<"$line"
    [[ $home == *7 ]] && text+="${user^^}=${home##*/};"
done
echo "${#count_of[@]} ${#text}"
