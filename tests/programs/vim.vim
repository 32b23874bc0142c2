" Edits the file that vim was started on the way a person would: substitutions, sorting, macros, undo, registers.
set nomore undolevels=1000

" Every line gets a key that depends on its number, and the file is sorted by it.
%s/\v(\w+) (\d+)/\=printf("%05d %s <%s>", (submatch(2) * 7919) % 10007, submatch(1), submatch(2))/
sort n
global/<\d*7>/move 0
%s/\(gamma\)\(.*\)/\2 \U\1/e

" A recorded macro: duplicate the word, count it up, go down one line.
normal! gg
let @q = "0yiwPa-\<Esc>\<C-A>j"
normal! 200@q

" Blocks of text wander through the registers. Setting undolevels closes a step of undo.
for turn in range(1, 40)
    execute turn * 3 . ',' . (turn * 3 + 20) . 'yank A'
    execute turn * 7 . 'delete B'
    if turn % 4 == 0
        $put A
        let @a = ''
    endif
    let &undolevels = &undolevels
endfor
1put! B
for turn in range(1, 30)
    undo
endfor
for turn in range(1, 20)
    redo
endfor

" Lists, dictionaries and strings of the script language.
let tally = {}
for line in getline(1, '$')
    for word in split(line, '\W\+')
        let tally[word] = get(tally, word, 0) + 1
    endfor
endfor
let top = sort(items(tally), {a, b -> b[1] - a[1] == 0 ? (a[0] < b[0] ? -1 : 1) : b[1] - a[1]})
call append('$', map(top[:30], {_, pair -> pair[0] . ': ' . pair[1]}))
call append('$', 'words: ' . len(tally))
call append('$', 'finished')
write! edited.txt
quitall!
